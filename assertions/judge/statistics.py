"""Confidence bounds for quantiles and rates of a population; each bound is one-sided at the given confidence."""

from __future__ import annotations

import math
from decimal import Decimal
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SAMPLE_SIZE: Final = 10_000_000
RateBoundFunction: TypeAlias = "Callable[[float, float, float], ConfidenceBounds]"


class ConfidenceBounds(Struct, frozen=True):
    """An estimate with its lower and upper bound, each of which holds at the requested confidence.

    A bound is infinite where the sample is too small to give one.
    """

    estimate: float
    lower: float
    upper: float


class ClusterSums(Struct, frozen=True):
    """Sums over `m` clusters of `n` values with `hits` hits: of hits², hits * values and values² per cluster."""

    m: int
    n: int
    hits: int
    hits_hits: int
    hits_values: int
    values_values: int

    @property
    def effective_size(self) -> float:
        """Number of independent values with the same information about the share of hits.

        Korn & Graubard 1998, Survey Methodology 24, 193-201: n divided by the design effect, with the variance of a
        ratio by Taylor series (Cochran 1977, Sampling Techniques, 6.3). If nothing varies, the design effect is
        unknown, and each cluster counts as one value.
        """
        if self.m == self.n:
            return self.n
        share = self.hits / self.n
        squares = self.hits_hits - 2 * share * self.hits_values + share * share * self.values_values
        if self.m == 1 or not 0 < share < 1 or squares <= 0:
            return self.m
        variance = self.m / (self.m - 1) * squares / self.n**2
        return max(1.0, min(self.n, share * (1 - share) / variance))


def bound_rate_wilson(hits: float, n: float, confidence: float) -> ConfidenceBounds:
    """Bound a proportion by Wilson's score interval (Wilson 1927, JASA 22, 209-212)."""
    z = NormalDist().inv_cdf(confidence)
    share = hits / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return ConfidenceBounds(
        share, max(0.0, center - half) if hits else 0.0, min(1.0, center + half) if hits < n else 1.0
    )


def bound_rate_clopper_pearson(hits: float, n: float, confidence: float) -> ConfidenceBounds:
    """Bound a proportion by exact bounds: neither errs more often than its confidence allows.

    Clopper & Pearson 1934, Biometrika 26, 404-413. Wilson's bounds err more often than stated if few hits are
    expected, and the more so the higher the confidence.
    """
    from scipy.stats import beta  # takes half a second to import, and only estimates need it

    lower = float(beta.ppf(1 - confidence, hits, n - hits + 1)) if hits else 0.0
    upper = float(beta.ppf(confidence, hits + 1, n - hits)) if hits < n else 1.0
    return ConfidenceBounds(hits / n, lower, upper)


def bound_quantile_ranks(n: int, quantile: Decimal, confidence: float) -> tuple[int | None, int | None]:
    """Return the ranks (from 1) of the order statistics that bound a quantile from below and above.

    Distribution-free (David & Nagaraja, Order Statistics, 7.1): the value of rank r is at most the quantile with
    probability P(Bin(n, q) >= r), and at least it with probability P(Bin(n, q) < r). None where n is too small.
    """
    from scipy.stats import binom  # takes half a second to import, and only estimates need it

    q = float(quantile)
    lower = int(binom.ppf(1 - confidence, n, q)) + 1
    while lower > 0 and binom.sf(lower - 1, n, q) < confidence:
        lower -= 1
    upper = int(binom.ppf(confidence, n, q)) + 1
    while upper <= n and binom.cdf(upper - 1, n, q) < confidence:
        upper += 1
    return (lower if lower >= 1 else None), (upper if upper <= n else None)


def bound_difference(one: ConfidenceBounds, other: ConfidenceBounds) -> ConfidenceBounds:
    """Bound a difference by the square-and-add rule, which for Wilson's bounds is Newcombe's hybrid score interval.

    Sources: Newcombe 1998, Statistics in Medicine 17, 873-890; Zou & Donner 2008, Statistics in Medicine 27, 1693-1702.
    """
    difference = one.estimate - other.estimate
    below = math.hypot(one.estimate - one.lower, other.upper - other.estimate)
    above = math.hypot(one.upper - one.estimate, other.estimate - other.lower)
    return ConfidenceBounds(difference, difference - below, difference + above)


def compute_sample_size_for_rate(
    rate: float, limit: float, confidence: float, compute_bounds: RateBoundFunction = bound_rate_wilson
) -> int | None:
    """Return the number of values needed to decide, if the observed rate stays; None if no number suffices."""
    if rate == limit:
        return None
    n = 1
    while n < MAX_SAMPLE_SIZE:
        bounds = compute_bounds(round(rate * n), n, confidence)
        if bounds.upper < limit or bounds.lower > limit:
            return n
        n = math.ceil(n * 1.1)
    return None


def compute_sample_size_for_quantile(quantile: Decimal, confidence: float) -> int:
    """Return the smallest n for which the largest value bounds the quantile from above: 59 for p95 at 95 %."""
    return math.ceil(math.log(1 - confidence) / math.log(float(quantile)))
