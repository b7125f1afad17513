"""Confidence bounds: exact binomial bounds of quantiles, score bounds of rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from statistics import NormalDist

from msgspec import Struct

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.aggregates import percent_of
from spanproof.tests.reference.conditions import ORDERS, convert, value_of
from spanproof.tests.reference.numbers import Outcome, list_values
from spanproof.tests.reference.selections import World


class Estimate(Struct, frozen=True):
    """A number with bounds that each hold at the requested confidence."""

    value: float
    lower: float
    upper: float
    is_rate: bool


def judge_limit(expectation: s.Expectation, world: World) -> Outcome:
    """Judge a limit: the whole interval must lie within it, or beyond it."""
    assert isinstance(expectation.claim, s.ComparisonClaim)
    node = expectation.claim.condition
    assert isinstance(node, s.Compare)
    if not world.all_settled:
        return "open"
    estimate = _estimate(node.left, world, confidence_of(expectation))
    if estimate is None:
        return "nothing"
    within = {ORDERS[node.operator](bound, _number(node.right)) for bound in (estimate.lower, estimate.upper)}
    return "open" if len(within) == 2 else "pass" if within == {True} else "fail"


def judge_not_worse(expectation: s.Expectation, world: World) -> Outcome:
    """Judge ``not worse than baseline by M``: compare the bounds of the difference with the margin."""
    claim = expectation.claim
    assert isinstance(claim, s.NotWorse)
    if not world.all_settled:
        return "open"
    confidence = confidence_of(expectation)
    current, baseline = (
        _estimate(claim.value, world, confidence),
        _estimate(claim.value, world.in_baseline(), confidence),
    )
    if current is None or baseline is None:
        return "nothing"
    margin = _number(claim.margin)
    if isinstance(claim.margin, s.Number) and claim.margin.unit == "%" and not current.is_rate:
        margin *= baseline.value
    difference = current.value - baseline.value
    if difference + math.hypot(current.upper - current.value, baseline.value - baseline.lower) <= margin:
        return "pass"
    if difference - math.hypot(current.value - current.lower, baseline.upper - baseline.value) > margin:
        return "fail"
    return "open"


def confidence_of(expectation: s.Expectation) -> float:
    """Return the requested confidence, or 95 %."""
    return 0.95 if expectation.confidence is None else _number(expectation.confidence)


def _number(node: s.Expression) -> float:
    value = value_of(node, None)
    assert value is not None
    return float(convert(value, "number"))


def _estimate(node: s.Expression, world: World, confidence: float) -> Estimate | None:
    assert isinstance(node, s.Function)
    traced_values = list_values(node, world)
    if not traced_values:
        return None
    values = sorted(value for _, value in traced_values)
    if node.name == "error_rate":
        return _rate(sum(values) / len(values), _compute_effective_size(traced_values), confidence)
    share = percent_of(node) / 100
    estimate = values[math.ceil(share * len(values)) - 1]
    below = [(trace, Fraction(value <= estimate)) for trace, value in traced_values]
    return _quantile(values, estimate, math.floor(_compute_effective_size(below)), share, confidence)


def _compute_effective_size(hits: list[tuple[str, Fraction]]) -> Fraction:
    """Return the effective sample size of hits (1 for a hit) in traces (Korn & Graubard 1998).

    It is the number of values divided by the design effect: the variance of the share of hits between traces,
    relative to that of as many independent values.
    """
    n, traces = len(hits), {trace for trace, _ in hits}
    share = sum(hit for _, hit in hits) / n
    deviations = [sum(hit - share for trace, hit in hits if trace == trace_id) for trace_id in traces]
    m = len(traces)
    if m == n:
        return Fraction(n)
    if m == 1 or not any(deviations):
        return Fraction(m)
    variance = Fraction(m, m - 1) * sum(trace_id * trace_id for trace_id in deviations) / n**2
    return max(Fraction(1), min(Fraction(n), share * (1 - share) / variance))


def _rate(share: Fraction, n: Fraction, confidence: float) -> Estimate:
    """Solve (p − share)² = z² p (1 − p) / n for p: Wilson's score bounds."""
    z = NormalDist().inv_cdf(confidence)
    a, b, c = 1 + z * z / float(n), -(2 * float(share) + z * z / float(n)), float(share * share)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return Estimate(float(share), (-b - root) / (2 * a), (-b + root) / (2 * a), is_rate=True)


def _quantile(values: list[Fraction], estimate: Fraction, size: int, share: Fraction, confidence: float) -> Estimate:
    """Return the order statistics that bound the quantile from below and above at the confidence.

    Their ranks among `size` independent values are scaled to the ranks of all values.
    """
    probabilities = [math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)]
    below = [rank for rank in range(1, size + 1) if sum(probabilities[rank:]) >= confidence]
    above = [rank for rank in range(1, size + 1) if sum(probabilities[:rank]) >= confidence]
    n = len(values)
    return Estimate(
        float(estimate),
        float(values[max(1, max(below) * n // size) - 1]) if below else -math.inf,
        float(values[math.ceil(Fraction(min(above) * n, size)) - 1]) if above else math.inf,
        is_rate=False,
    )


def find_worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst of the verdicts on groups."""
    remaining = set(outcomes) or {"nothing"}
    return next(each for each in ("fail", "open", "nothing", "pass") if each in remaining)  # type: ignore[return-value]
