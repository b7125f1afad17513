"""A wrong rule that is put into the engine is caught by the case files: one test for each rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from msgspec.structs import replace

from spanproof.assertions.cases.case_runner import run_cases
from spanproof.assertions.judge import doubts
from spanproof.collector.calls import logical_calls, retryable_failures
from spanproof.collector.topology import nesting
from spanproof.collector.topology.span_errors import HttpOutcome
from spanproof.query_lang.check.readings import Doubt, Reading
from spanproof.query_lang.compile import compiler

CASES: Final = Path(__file__).parent.parent / "cases"
compare_requests = logical_calls.compare_requests
concerns = doubts._concerns  # the rule to replace
compile_circuit = compiler.compile_circuit


def count_wrapper_spans(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nesting, "_can_wrap", lambda *_: False)


def take_callee_as_part_of_target(patch: pytest.MonkeyPatch) -> None:
    def compare(failed: Any, later: Any) -> Any:
        if failed.is_answered != later.is_answered:  # before the answer is known, the callee's name is another
            return "they called different services"
        return compare_requests(failed, later)

    patch.setattr(logical_calls, "compare_requests", compare)


def retry_not_found(patch: pytest.MonkeyPatch) -> None:
    outcomes = pa.array(
        [HttpOutcome.CLIENT_ERROR, HttpOutcome.TRANSIENT_CLIENT_ERROR, HttpOutcome.SERVER_ERROR], pa.uint8()
    )
    patch.setattr(retryable_failures, "_RETRYABLE_HTTP_OUTCOMES", outcomes)


def take_unfinished_as_zero(patch: pytest.MonkeyPatch) -> None:
    list_others = Reading.list_others

    def leave_out_unfinished(reading: Reading, doubt: Doubt, durations: Sequence[int]) -> list[Reading]:
        return [] if doubt == "unfinished" else list_others(reading, doubt, durations)

    patch.setattr(Reading, "list_others", leave_out_unfinished)


def join_possible_attempts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(doubts, "_concerns", lambda doubt, claim: doubt != "possible" and concerns(doubt, claim))


def sum_probes(patch: pytest.MonkeyPatch) -> None:
    def compile_(*arguments: Any, **options: Any) -> Any:
        plan = compile_circuit(*arguments, **options)
        until_result = "AND s.start_ns < w.first_end_ns"
        assert until_result in plan.sql or "probes" not in repr(arguments[0])
        return replace(plan, sql=plan.sql.replace(until_result, "AND s.start_ns < 9223372036854775807"))

    patch.setattr(compiler, "compile_circuit", compile_)


WRONG_RULES: Final[tuple[tuple[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]], ...]] = (
    (count_wrapper_spans, ("field/01-nested-client-nextjs-undici.case",)),
    (take_callee_as_part_of_target, ("field/19-refused-then-answered.case",)),
    (retry_not_found, ("field/21-client-4xx-is-error.case",)),
    (take_unfinished_as_zero, ("unfinished.case",)),
    (join_possible_attempts, ("resilience.case",)),
    (sum_probes, ("field/54-circuit.case",)),
)


def has_difference(files: Iterable[str]) -> bool:
    return any(result.difference for file in files for result in run_cases((CASES / file).read_text(encoding="utf-8")))


@pytest.mark.parametrize(("put_in", "files"), WRONG_RULES, ids=[rule.__name__ for rule, _ in WRONG_RULES])
def test_wrong_rule_is_caught(
    put_in: Callable[[pytest.MonkeyPatch], None], files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in(monkeypatch)
    assert has_difference(files), f"no case in {', '.join(files)} tells the wrong rule from the right one"
