"""Agreement of the reference and the engine on generated traces: verdicts and their evidence.

``TESTS_FUZZ`` is the number of verdicts to compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanproof.assertions.judge.evaluate import Judge
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.tests.reference.claims import ClaimMaker
from spanproof.tests.reference.conditions import NotCovered
from spanproof.tests.reference.evidence import find_mismatch
from spanproof.tests.reference.generate import TraceMaker, TraceSet
from spanproof.tests.reference.judge import judge
from spanproof.tests.reference.minimize import minimize
from spanproof.tests.reference.random_choice import CLAIMS, WANTED, Drawn, compare
from spanproof.tests.reference.selections import World
from spanproof.tests.reference.store_traces import open_judge
from spanproof.tests.reference.write_case import write_case

SHAPES: Final[Counter[str]] = Counter()  # that occurred in generated traces
VERDICTS: Final[Counter[str]] = Counter()


@pytest.fixture(autouse=True)
def print_counts(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Print what was compared: `make fuzz` shows that each shape occurred."""
    yield
    if WANTED:
        with capsys.disabled():
            print(f"\n{VERDICTS.total()} verdicts compared:", _list_counts(VERDICTS))
            print("shapes:", _list_counts(SHAPES))


def _list_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.most_common())


@pytest.mark.timeout(0)
@compare(verdicts=int(WANTED or 1000))
@given(st.data())
def test_engine_agrees_with_reference(data: st.DataObject) -> None:
    choices = Drawn(data.draw)
    trace_set = TraceMaker(choices).make()
    SHAPES.update(trace_set.shapes)
    claims = ClaimMaker(choices)
    compared = 0
    world = World.of(trace_set.spans, trace_set.settled)
    with open_judge(trace_set) as engine:
        while compared < CLAIMS:
            claim = claims.make()
            parsed = parse_claim(claim)
            assert not parsed.diagnostics, claim
            if check_claim(parsed):
                continue
            verdicts = find_verdicts(claim, trace_set, engine, world)
            if verdicts is None:
                continue
            compared += 1
            VERDICTS[verdicts[0]] += 1
            if verdicts[0] != verdicts[1]:
                smaller = minimize(
                    trace_set,
                    lambda candidate, claim=claim, verdicts=verdicts: find_verdicts(claim, candidate) == verdicts,
                )
                pytest.fail(
                    f"the engine says {verdicts[1]}:\n\n{write_case(smaller, claim, verdicts[0])}",
                    pytrace=False,
                )


def find_verdicts(
    claim: str, trace_set: TraceSet, engine: Judge | None = None, world: World | None = None
) -> tuple[str, str] | None:
    """Return the verdicts of the reference and the engine on a claim; None if the reference does not cover it.

    The verdict of the engine also names a fault in its evidence.
    """
    expectation = parse_claim(claim).expectation
    assert expectation is not None
    world = world or World.of(trace_set.spans, trace_set.settled)
    try:
        expected = judge(expectation, world)
    except NotCovered:
        return None
    with nullcontext(engine) if engine else open_judge(trace_set) as open_engine:
        assert open_engine is not None
        verdict = open_engine.judge(expectation, claim, Bindings())
    mismatch = find_mismatch(expectation, verdict, world)
    return expected, str(verdict.outcome) + (f", but {mismatch}" if mismatch else "")
