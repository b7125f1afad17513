"""What a sample says of the whole: exact binomial bounds of quantiles, score bounds of rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

from spanproof.query_lang import syntax as s
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
    assert isinstance(expectation.claim, s.Comparison)
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
    values = sorted(values_behind(node, world))
    if not values:
        return None
    if node.name == "error_rate":
        return _rate(sum(values), len(values), confidence)
    return _quantile(values, percent_of(node) / 100, confidence)


def _rate(hits: Fraction, n: int, confidence: float) -> Estimate:
    """Solve (p − share)² = z² p (1 − p) / n for p: Wilson's score bounds."""
    z, share = NormalDist().inv_cdf(confidence), float(hits) / n
    a, b, c = 1 + z * z / n, -(2 * share + z * z / n), share * share
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return Estimate(share, (-b - root) / (2 * a), (-b + root) / (2 * a), is_rate=True)


def _quantile(values: list[Fraction], share: Fraction, confidence: float) -> Estimate:
    """Take the order statistics that lie below, and above, the quantile with the confidence asked for."""
    n = len(values)
    exactly = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    below = [rank for rank in range(1, n + 1) if sum(exactly[rank:]) >= confidence]
    above = [rank for rank in range(1, n + 1) if sum(exactly[:rank]) >= confidence]
    return Estimate(
        float(values[math.ceil(share * n) - 1]),
        float(values[max(below) - 1]) if below else -math.inf,
        float(values[min(above) - 1]) if above else math.inf,
        is_rate=False,
    )


def gravest(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the gravest of the verdicts on groups."""
    found = set(outcomes) or {"nothing"}
    return next(each for each in ("fail", "open", "nothing", "pass") if each in found)  # type: ignore[return-value]
