"""Confidence bounds for quantiles and rates of a population; each bound is one-sided at the given confidence."""

from __future__ import annotations

import math
from decimal import Decimal
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    pass

MAX_SAMPLE_SIZE: Final = 10_000_000
_WILSON_CONFIDENCE: Final = 0.99  # the highest
_ROUNDING: Final = 1e-12  # relative error of sums
_MIN_BLOCKS, _MAX_BLOCKS, _MIN_BLOCK_SIZE = 5, 10, 20
Array: TypeAlias = "np.ndarray[Any, Any]"


class ConfidenceBounds(Struct, frozen=True):
    """An estimate with its lower and upper bound, each of which holds at the requested confidence.

    A bound is infinite where the sample is too small to give one.
    """

    estimate: float
    lower: float
    upper: float


def order_clusters(begins_ns: Array, ids: Array, counts: Array, totals: Array) -> tuple[Array, Array]:
    """Return the numbers of values and their sums, per cluster, in the order in which the clusters began.

    The order of clusters that began at once is that of their ids.
    """
    order = np.argsort(begins_ns)
    ordered = begins_ns[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((ids, begins_ns))  # takes four times as long
    return counts[order].astype(float), totals[order].astype(float)


def estimate_ratio(counts: Array, totals: Array) -> tuple[float, float, int]:
    """Return the mean of clustered values, its standard error, and the number of clusters that this rests on.

    Clusters that follow each other may be alike, as load and caches drift. Then the error between blocks of clusters is
    larger than that between clusters, and holds instead (non-overlapping batch means: Schmeiser 1982, Operations
    Research 30, 556-568).
    """
    by_cluster = _estimate_ratio(counts, totals)
    blocks = min(_MAX_BLOCKS, len(counts) // _MIN_BLOCK_SIZE)
    if blocks < _MIN_BLOCKS:
        return by_cluster
    ends = np.arange(blocks) * len(counts) // blocks
    by_block = _estimate_ratio(np.add.reduceat(counts, ends), np.add.reduceat(totals, ends))
    return by_block if by_block[1] > by_cluster[1] else by_cluster


def _estimate_ratio(counts: Array, totals: Array) -> tuple[float, float, int]:
    """Return the mean, its standard error, and the number of clusters.

    The variance of a ratio by Taylor series: Cochran 1977, Sampling Techniques, 6.3. The error is 0 if nothing varies,
    and unknown, infinite, with one cluster.
    """
    mean = totals.sum() / counts.sum()
    m = len(counts)
    if m == 1:
        return float(mean), math.inf, 1
    deviations = totals - mean * counts
    if (np.abs(deviations) <= _ROUNDING * np.abs(mean) * counts).all():
        return float(mean), 0.0, m
    squares = float((deviations**2).sum())
    return float(mean), math.sqrt(m / (m - 1) * squares) / float(counts.sum()), m


def compute_effective_size(counts: Array, hits: Array) -> float:
    """Return the number of independent values with the same information about the share of hits, from sums per cluster.

    Korn & Graubard 1998, Survey Methodology 24, 193-201: n divided by the design effect. If nothing varies, the design
    effect is unknown, and each cluster counts as one value.
    """
    n, m = float(counts.sum()), len(counts)
    share, error, clusters = estimate_ratio(counts, hits)
    if clusters == m == n:
        return n
    if m == 1 or not 0 < share < 1 or error == 0:
        return m
    return max(1.0, min(n, share * (1 - share) / error**2))


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


def bound_rate(hits: float, n: float, confidence: float) -> ConfidenceBounds:
    """Bound a proportion by Wilson's interval or, as this errs more than stated at a high confidence, exactly."""
    is_high = confidence > _WILSON_CONFIDENCE
    return (bound_rate_clopper_pearson if is_high else bound_rate_wilson)(hits, n, confidence)


def bound_mean(mean: float, error: float, clusters: int, unit: float, confidence: float) -> ConfidenceBounds:
    """Bound the mean of clustered values by Student's t with one degree of freedom less than there are clusters.

    If no cluster differs, its error is unknown. Then the share of clusters that differ is bounded (Clopper & Pearson:
    at most 1 - (1 - confidence) ** (1 / clusters)), and each is taken to differ by `unit`.
    """
    if error == 0:
        half = unit * (1 - (1 - confidence) ** (1 / clusters))
    elif clusters == 1:
        half = math.inf
    else:
        from scipy.stats import t  # takes half a second to import, and only estimates need it

        half = float(t.ppf(confidence, clusters - 1)) * error
    return ConfidenceBounds(mean, mean - half, mean + half)


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


def compute_sample_size_for_rate(rate: float, limit: float, confidence: float) -> int | None:
    """Return the number of values needed to decide, if the observed rate stays; None if no number suffices."""
    if rate == limit:
        return None
    n = 1
    while n < MAX_SAMPLE_SIZE:
        bounds = bound_rate(round(rate * n), n, confidence)
        if bounds.upper < limit or bounds.lower > limit:
            return n
        n = math.ceil(n * 1.1)
    return None


def compute_sample_size_for_quantile(quantile: Decimal, confidence: float) -> int:
    """Return the smallest n for which the largest value bounds the quantile from above: 59 for p95 at 95 %."""
    return math.ceil(math.log(1 - confidence) / math.log(float(quantile)))
