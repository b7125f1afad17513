"""What a sample says of the whole: exact binomial bounds of quantiles, score bounds of rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.conditions import ORDERS, convert, value_of
from spanproof.tests.reference.numbers import Outcome, percent_of, values_behind
from spanproof.tests.reference.selections import World


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the bounds that each hold at the confidence asked for."""

    value: float
    lower: float
    upper: float
    is_rate: bool


def judge_limit(expectation: s.Expectation, world: World) -> Outcome:
    """Judge a limit: all that is likely must be within it, or all beyond."""
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
    """Judge ``not worse than baseline by M``: the bounds of the difference against the margin."""
    claim = expectation.claim
    assert isinstance(claim, s.NotWorse)
    if not world.all_settled:
        return "open"
    confidence = confidence_of(expectation)
    here, there = _estimate(claim.value, world, confidence), _estimate(claim.value, world.in_baseline(), confidence)
    if here is None or there is None:
        return "nothing"
    margin = _number(claim.margin)
    if isinstance(claim.margin, s.Number) and claim.margin.unit == "%" and not here.is_rate:
        margin *= there.value
    difference = here.value - there.value
    if difference + math.hypot(here.upper - here.value, there.value - there.lower) <= margin:
        return "pass"
    if difference - math.hypot(here.value - here.lower, there.upper - there.value) > margin:
        return "fail"
    return "open"


def confidence_of(expectation: s.Expectation) -> float:
    """Return the confidence that is asked for, or 95 %."""
    return 0.95 if expectation.confidence is None else _number(expectation.confidence)


def _number(node: s.Expression) -> float:
    found = value_of(node, None)
    assert found is not None
    return float(convert(found, "number"))


def _estimate(node: s.Expression, world: World, confidence: float) -> Estimate | None:
    assert isinstance(node, s.Function)
    behind = values_behind(node, world)
    if not behind:
        return None
    values = sorted(value for _, value in behind)
    if node.name == "error_rate":
        return _rate(sum(values) / len(values), _count_independent(behind), confidence)
    share = percent_of(node) / 100
    estimate = values[math.ceil(share * len(values)) - 1]
    below = [(trace, Fraction(value <= estimate)) for trace, value in behind]
    return _quantile(values, estimate, math.floor(_count_independent(below)), share, confidence)


def _count_independent(hits: list[tuple[str, Fraction]]) -> Fraction:
    """Return as how many independent values (1 for a hit) those of some traces count (Korn & Graubard 1998).

    It is their number divided by the design effect: by how much the share of hits varies more, from trace to trace,
    than that of as many independent values would.
    """
    n, traces = len(hits), {trace for trace, _ in hits}
    share = sum(hit for _, hit in hits) / n
    strayed = [sum(hit - share for trace, hit in hits if trace == each) for each in traces]
    m = len(traces)
    if m == n:
        return Fraction(n)
    if m == 1 or not any(strayed):
        return Fraction(m)
    variance = Fraction(m, m - 1) * sum(each * each for each in strayed) / n**2
    return max(Fraction(1), min(Fraction(n), share * (1 - share) / variance))


def _rate(share: Fraction, n: Fraction, confidence: float) -> Estimate:
    """Solve (p − share)² = z² p (1 − p) / n for p: Wilson's score bounds."""
    z = NormalDist().inv_cdf(confidence)
    a, b, c = 1 + z * z / float(n), -(2 * float(share) + z * z / float(n)), float(share * share)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return Estimate(float(share), (-b - root) / (2 * a), (-b + root) / (2 * a), is_rate=True)


def _quantile(values: list[Fraction], estimate: Fraction, size: int, share: Fraction, confidence: float) -> Estimate:
    """Take the order statistics that lie below, and above, the quantile with the confidence asked for.

    Their ranks are those among `size` independent values, carried over to all.
    """
    exactly = [math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)]
    below = [rank for rank in range(1, size + 1) if sum(exactly[rank:]) >= confidence]
    above = [rank for rank in range(1, size + 1) if sum(exactly[:rank]) >= confidence]
    n = len(values)
    return Estimate(
        float(estimate),
        float(values[max(1, max(below) * n // size) - 1]) if below else -math.inf,
        float(values[math.ceil(Fraction(min(above) * n, size)) - 1]) if above else math.inf,
        is_rate=False,
    )


def gravest(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the gravest of the verdicts on groups."""
    found = set(outcomes) or {"nothing"}
    return next(each for each in ("fail", "open", "nothing", "pass") if each in found)  # type: ignore[return-value]
