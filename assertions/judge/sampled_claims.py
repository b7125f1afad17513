"""Estimates that are judged together: what was read for each, and the verdicts that share the allowed error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge.doubts import OpenEvidence
from spanproof.assertions.judge.estimate_text import explain_estimate
from spanproof.assertions.judge.estimates import Decision, EstimatedClaim, decide_together
from spanproof.query_lang.compile.resilience import UNDECIDED_REASON
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import duckdb

    from spanproof.query_lang.check.readings import Doubt


class SampledReading(Struct, frozen=True):
    """The tests of a claim under one reading of open evidence; `doubts` are those of which it takes the other side.

    `is_unobserved`: the claim is about attempts that only the callee would show, and it sent no span.
    """

    claim: EstimatedClaim
    doubts: tuple[Doubt, ...]
    is_endless: bool
    is_unobserved: bool


class SampledClaim(Struct, frozen=True):
    """An estimate whose samples were read. `verdict` is given if there is nothing to test.

    `nearest` names what exists if nothing matched; `note` ends the reason. `depends_on_ends`: spans that never ended
    leave the values open.
    """

    expectation: s.Expectation
    connection: duckdb.DuckDBPyConnection
    open_evidence: OpenEvidence
    variables: Collection[str]
    readings: tuple[SampledReading, ...] = ()
    verdict: Verdict | None = None
    nearest: str | None = None
    note: str = ""
    depends_on_ends: bool = False


def judge_together(sampled: Sequence[SampledClaim], error_fraction: Decimal) -> list[Verdict]:
    """Return the verdicts on the estimates of a proof. See `decide_together`."""
    decisions = iter(decide_together([each.readings[0].claim for each in sampled if each.readings], error_fraction))
    return [
        each.verdict if each.verdict is not None else _conclude(each, next(decisions), error_fraction)
        for each in sampled
    ]


def _conclude(sampled: SampledClaim, decisions: list[Decision], error_fraction: Decimal) -> Verdict:
    """Return the verdict of the first reading, unless another reading gives another outcome."""
    claim, variables = sampled.expectation.claim, sampled.variables
    first = _explain(sampled, sampled.readings[0], decisions)
    agreed = list(decisions)
    endless: Verdict | None = None
    different: tuple[Verdict, tuple[Doubt, ...]] | None = None
    for reading in sampled.readings[1:]:
        repeated = _repeat(sampled, decisions, reading.claim, error_fraction)
        agreed = _leave_open(sampled.readings[0].claim, agreed, reading.claim, repeated)
        verdict = _explain(sampled, reading, repeated)
        if verdict.outcome != first.outcome and different is None:
            different = verdict, reading.doubts
        if reading.doubts == ("unfinished",) and reading.is_endless:
            endless = verdict
    verdict = _explain(sampled, sampled.readings[0], agreed)  # without the groups that the readings judge differently
    if different is not None and verdict.outcome is not Outcome.FAIL:
        return sampled.open_evidence.make_inconclusive(claim, first, *different, variables)
    if verdict.outcome is not Outcome.INCONCLUSIVE and sampled.depends_on_ends:
        return sampled.open_evidence.make_inconclusive(claim, first, first, ("unfinished",), variables)
    if agreed != decisions or sampled.expectation.by:
        return verdict
    if endless is not None:
        return sampled.open_evidence.choose_observation(sampled.connection, claim, first, endless, variables)
    return first


def _leave_open(
    claim: EstimatedClaim, decisions: list[Decision], other: EstimatedClaim, others: list[Decision]
) -> list[Decision]:
    """Return the decisions, undecided where another reading decides otherwise about the group, or lacks it."""
    outcomes = {test.group: each.outcome for test, each in zip(other.tests, others, strict=True)}
    return [
        each if outcomes.get(test.group) is each.outcome else replace(each, outcome=Outcome.INCONCLUSIVE)
        for test, each in zip(claim.tests, decisions, strict=True)
    ]


def _repeat(
    sampled: SampledClaim, decisions: list[Decision], claim: EstimatedClaim, error_fraction: Decimal
) -> list[Decision]:
    """Decide the tests of another reading, each at the confidence that its group had in the first."""
    tested = sampled.readings[0].claim
    confidences = {test.group: each.confidence for test, each in zip(tested.tests, decisions, strict=True)}
    strictest = max(confidences.values(), default=float(1 - claim.error * error_fraction))
    return [test.decide(confidences.get(test.group, strictest)) for test in claim.tests]


def _explain(sampled: SampledClaim, reading: SampledReading, decisions: Sequence[Decision]) -> Verdict:
    verdict = explain_estimate(sampled.expectation, reading.claim, decisions, sampled.nearest)
    if reading.is_unobserved and verdict.outcome is not Outcome.INCONCLUSIVE:
        verdict = replace(verdict, outcome=Outcome.INCONCLUSIVE, id="untold", reason=UNDECIDED_REASON)
    return replace(verdict, reason=verdict.reason + sampled.note)
