"""Verdicts of estimates in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from spanproof.assertions.explain import units
from spanproof.assertions.explain.group_text import format_group
from spanproof.assertions.explain.text_formatting import format_count, format_list
from spanproof.assertions.findings.finding_counts import GroupKey
from spanproof.assertions.findings.verdict import SHOWN_GROUPS, GroupEstimate, Outcome, Verdict
from spanproof.assertions.judge.estimates import Decision, DifferenceTest, EstimatedClaim, EstimateTest, LimitTest
from spanproof.assertions.judge.samples import RateSample, Sample
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

_IDS: Final = {Outcome.PASS: "pass", Outcome.FAIL: "confident", Outcome.INCONCLUSIVE: "sample-too-small"}
_DIGITS: Final = 4


class _Judged(Struct, frozen=True):
    test: EstimateTest
    decision: Decision


def explain_estimate(
    expectation: s.Expectation, claim: EstimatedClaim, decisions: Sequence[Decision], nearest: str | None
) -> Verdict:
    """Return the verdict on a claim. `nearest` names what exists if nothing matched."""
    judged = [_Judged(test, decision) for test, decision in zip(claim.tests, decisions, strict=True)]
    by = tuple(field.text for field in expectation.by)
    if not judged:
        return _explain_nothing(expectation, claim, nearest, by)
    if not by:
        return _explain_single(expectation, judged[0], claim.type)
    return _explain_groups(expectation, judged, claim, by)


def _explain_nothing(
    expectation: s.Expectation, claim: EstimatedClaim, nearest: str | None, by: tuple[str, ...]
) -> Verdict:
    value = expectation.claim.value if isinstance(expectation.claim, s.BaselineTest) else None
    at = expectation.claim.at if value is None else value.at
    reason = "nothing matched" + (" in the baseline" if claim.is_empty == (False, True) else "")
    if by and (claim.small or claim.unmatched):
        reason = f"there is no group to judge{_list_rest(claim, by)}"
    help_ = nearest if claim.is_empty[0] else None
    reason += f"; {help_}" if help_ else ""
    return Verdict(Outcome.INCONCLUSIVE, "nothing-matched", reason, at, "nothing matched", help=help_)


def _explain_single(expectation: s.Expectation, judged: _Judged, type_: ValueType) -> Verdict:
    test, decision = judged.test, judged.decision
    estimate = format_estimate(test.sample, type_)
    reason = _describe(judged, type_)
    reason += f", each bound at {units.format_fraction(round(decision.confidence, 8))} confidence"
    if decision.needed is not None and decision.needed > test.sample.n:
        reason += f"; about {decision.needed} values would decide"
    id_ = _IDS[decision.outcome]
    return Verdict(decision.outcome, id_, reason, expectation.claim.at, estimate, test.sample.n, estimate)


def _describe(judged: _Judged, type_: ValueType) -> str:
    """Return the estimates of a test, and the interval that decided."""
    test, bounds = judged.test, judged.decision.bounds
    low, high = (_format_bound(value, type_) for value in (bounds.lower, bounds.upper))
    if isinstance(test, LimitTest):
        return f"{_format_sample(test.sample, type_)}; the population value lies between {low} and {high}"
    compared = f"{_format_sample(test.sample, type_)} against {_format_sample(test.baseline, type_)}"
    return f"{compared}; the difference less the margin lies between {low} and {high}"


def _explain_groups(
    expectation: s.Expectation, judged: list[_Judged], claim: EstimatedClaim, by: tuple[str, ...]
) -> Verdict:
    judged.sort(key=lambda each: -each.test.measure_distance())
    of_outcome = {
        outcome: [each for each in judged if each.decision.outcome is outcome]
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
    }
    outcome = next(each for each, found in of_outcome.items() if found)
    found = of_outcome[outcome]
    groups = f"{format_count(len(judged), 'group')} by {', '.join(by)}"
    n = sum(each.test.sample.n for each in judged)
    if outcome is Outcome.PASS:
        reason, mark = f"in each of {groups}{_list_rest(claim, by)}", ""
    else:
        word = "failed" if outcome is Outcome.FAIL else "undecided"
        shown = [_describe_group(each, claim.type, by) for each in found[:SHOWN_GROUPS]]
        shown += [f"and {len(found) - SHOWN_GROUPS} more"] if len(found) > SHOWN_GROUPS else []
        undecided = len(of_outcome[Outcome.INCONCLUSIVE]) if outcome is Outcome.FAIL else 0
        rest = f"; {undecided} undecided" if undecided else ""
        reason = f"{len(found)} of {groups} {word}: {'; '.join(shown)}{rest}{_list_rest(claim, by)}"
        mark = f"{_quote_group(found[0].test.group, by)} {_compare(found[0].test, claim.type)}"
    results = tuple(
        GroupEstimate(
            tuple(zip(by, each.test.group, strict=True)), each.decision.outcome, each.test.sample.n,
            each.test.sample.estimate,
            each.test.baseline.n if isinstance(each.test, DifferenceTest) else None,
            each.test.baseline.estimate if isinstance(each.test, DifferenceTest) else None,
            _describe_group(each, claim.type, by),
        )
        for each in judged
    )  # fmt: skip
    observed = _compare(found[0].test, claim.type) if outcome is not Outcome.PASS else None
    return Verdict(outcome, _IDS[outcome], reason, expectation.claim.at, mark, n, observed, groups=results)


def _describe_group(judged: _Judged, type_: ValueType, by: tuple[str, ...]) -> str:
    text = f"{_quote_group(judged.test.group, by)} {_compare(judged.test, type_)}"
    if judged.decision.outcome is Outcome.INCONCLUSIVE and judged.decision.needed is not None:
        text += f", about {judged.decision.needed} values would decide"
    return text


def _compare(test: EstimateTest, type_: ValueType) -> str:
    current = _format_sample(test.sample, type_)
    return current if isinstance(test, LimitTest) else f"{current} against {_format_sample(test.baseline, type_)}"


def _list_rest(claim: EstimatedClaim, by: tuple[str, ...]) -> str:
    """Return which groups were not judged, as a suffix."""
    kinds = (
        ("only in the baseline", [key for key, is_new in claim.unmatched if not is_new]),
        ("not in the baseline", [key for key, is_new in claim.unmatched if is_new]),
        ("too few values", list(claim.small)),
    )
    texts = []
    for reason, keys in kinds:
        if keys:
            texts.append(f"{reason}: {format_list([format_group(key, by) for key in keys], SHOWN_GROUPS)}")
    return f"; not judged, {'; '.join(texts)}" if texts else ""


def _quote_group(key: GroupKey, by: tuple[str, ...]) -> str:
    return f"`{format_group(key, by)}`"


def format_estimate(sample: Sample, type_: ValueType) -> str:
    """Return an estimate; of a rate with its counts."""
    counted = f", {sample.hits} of {sample.n}" if isinstance(sample, RateSample) else ""
    return _format_value(sample.estimate, type_) + counted


def _format_sample(sample: Sample, type_: ValueType) -> str:
    """Return an estimate with the size of its sample."""
    estimate = format_estimate(sample, type_)
    return estimate if isinstance(sample, RateSample) else f"{estimate} (n = {sample.n})"


def _format_value(value: float, type_: ValueType) -> str:
    """Return a value with four digits, or more before the point: its error is larger than further ones."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{_DIGITS}g}") if abs(value) < 10**_DIGITS or type_.kind == "duration" else round(value)
    return units.format_value(round(rounded) if type_.kind == "duration" else rounded, type_)


def _format_bound(value: float, type_: ValueType) -> str:
    return "anything" if value in (float("inf"), -float("inf")) else _format_value(value, type_)
