"""``if … then``: the second claim, judged in the traces in which the first holds."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final, TypeAlias
from uuid import UUID

from msgspec.structs import replace

from spanproof.assertions.explain.claim_text import ClaimText
from spanproof.assertions.explain.text_formatting import format_count
from spanproof.assertions.findings.trace_share import list_traces
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge.trace_selection import TraceSelection
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.compiler import compile_claim
from spanproof.query_lang.syntax import nodes as s

JudgeClaim: TypeAlias = Callable[[s.Expectation], Verdict]
_ALL: Final = Decimal(1)


def judge_conditional(
    expectation: s.Expectation,
    claim_text: ClaimText,
    selection: TraceSelection,
    bindings: Bindings,
    judge: JudgeClaim,
) -> Verdict:
    """Return the verdict on an ``if … then``. `judge` judges its second claim about the selected traces.

    Traces in which it is still open whether the condition holds make the verdict inconclusive, except in two cases:
    the second claim already fails where the condition holds, or it holds in all these traces.
    """
    claim = expectation.claim
    assert isinstance(claim, s.IfThen)  # noqa: S101 (the caller has tested it)
    every_trace = s.ShareClause("==", s.Number(_ALL, "%", claim.at), claim.consequence.at)
    condition = replace(expectation, claim=claim.condition, share=every_trace)
    states = list_traces(selection.connection, compile_claim(condition, bindings))
    held, open_ = states["pass"], {**states["open"], **states["coming"]}
    condition_text = claim_text.read_source(claim.condition.at)
    if not held and not open_:
        reason = f"not exercised: `{condition_text}` held in no trace"
        return Verdict(Outcome.INCONCLUSIVE, "not-exercised", reason, claim.condition.at, "never held")

    def judge_in(traces: dict[UUID, bool]) -> Verdict:
        needs_share = isinstance(claim.consequence, s.ComparisonClaim) and len(traces) > 1
        share = expectation.share or (every_trace if needs_share else None)
        with selection.restrict(traces):
            return judge(replace(expectation, claim=claim.consequence, share=share))

    verdict = judge_in(held) if held else None
    if verdict is not None and open_:
        is_final = expectation.share is None and (
            verdict.outcome is Outcome.FAIL
            or (verdict.outcome is Outcome.PASS and judge_in({**held, **open_}).outcome is Outcome.PASS)
        )
        verdict = verdict if is_final else None
    if verdict is None:
        listed = "; ".join(selection.selected.missing) or f"undecided in {format_count(len(open_), 'trace')}"
        reason = f"it is open whether `{condition_text}` holds: {listed}"
        return Verdict(
            Outcome.INCONCLUSIVE, "incomplete", reason, claim.condition.at, "cannot be decided", len(held),
            final=False, cause=listed,
        )  # fmt: skip
    if len(held) == 1 or verdict.outcome not in (Outcome.PASS, Outcome.FAIL):
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; `{condition_text}` held in {format_count(len(held), 'trace')}")
