"""Coverage of confidence bounds: known values, and simulations with fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from spanproof.assertions.judge import statistics as stats

Values = npt.NDArray[np.float64]
TRIALS = 2000
# by how much the coverage over TRIALS trials falls below 95 % by chance, once in a thousand
TOLERANCE = 3.1 * math.sqrt(0.95 * 0.05 / TRIALS)


# ## Known values


def test_wilson_and_newcombe_match_publication() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857 and 873): 81 of 263; 56 of 70 against 48 of 80."""
    single = stats.bound_rate_wilson(81, 263, 0.975)
    assert (round(single.lower, 4), round(single.upper, 4)) == (0.2553, 0.3662)
    difference = stats.bound_difference(stats.bound_rate_wilson(56, 70, 0.975), stats.bound_rate_wilson(48, 80, 0.975))
    assert (round(difference.lower, 4), round(difference.upper, 4)) == (0.0524, 0.3339)


def test_exact_bounds_match_publication() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857), Clopper & Pearson's: 81 of 263, 0 of 20."""
    bounds = stats.bound_rate_clopper_pearson(81, 263, 0.975)
    assert (round(bounds.lower, 4), round(bounds.upper, 4)) == (0.2527, 0.3676)
    none = stats.bound_rate_clopper_pearson(0, 20, 0.975)
    assert (none.lower, round(none.upper, 4)) == (0, 0.1684)
    assert stats.bound_rate_clopper_pearson(20, 20, 0.975).upper == 1


@pytest.mark.parametrize(("share", "least"), [("0.5", 5), ("0.9", 29), ("0.95", 59), ("0.99", 299), ("0.999", 2995)])
def test_smallest_sample_that_bounds_quantile(share: str, least: int) -> None:
    assert stats.compute_sample_size_for_quantile(Decimal(share), 0.95) == least
    assert stats.bound_quantile_ranks(least, Decimal(share), 0.95)[1] == least
    assert stats.bound_quantile_ranks(least - 1, Decimal(share), 0.95)[1] is None


# ## Coverage


def draw_skewed(generator: np.random.Generator, n: int) -> Values:
    return generator.lognormal(4, 1, n)


def draw_bimodal(generator: np.random.Generator, n: int) -> Values:
    slow = generator.random(n) < 0.06
    return np.where(slow, generator.normal(900, 40, n), generator.normal(80, 10, n))


@pytest.mark.parametrize("draw", [draw_skewed, draw_bimodal])
@pytest.mark.parametrize(("share", "n"), [("0.5", 30), ("0.95", 60), ("0.95", 400), ("0.99", 700)])
def test_order_statistics_bound_quantiles(
    draw: Callable[[np.random.Generator, int], Values], share: str, n: int
) -> None:
    generator = np.random.default_rng(7)
    true = np.quantile(draw(generator, 2_000_000), float(share))
    lower, upper = stats.bound_quantile_ranks(n, Decimal(share), 0.95)
    samples = np.sort([draw(generator, n) for _ in range(TRIALS)], axis=1)
    assert upper is not None
    assert np.mean(samples[:, upper - 1] >= true) >= 0.95 - TOLERANCE
    if lower is not None:
        assert np.mean(samples[:, lower - 1] <= true) >= 0.95 - TOLERANCE


@cache
def bound(exact: bool, hits: int, n: int, confidence: float) -> stats.ConfidenceBounds:
    return (stats.bound_rate_clopper_pearson if exact else stats.bound_rate_wilson)(hits, n, confidence)


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("n", [50, 300, 2000])
def test_exact_bounds_keep_confidence(rate: float, n: int) -> None:
    hit_counts = np.random.default_rng(8).binomial(n, rate, TRIALS)
    assert np.mean([bound(True, hits, n, 0.95).upper >= rate for hits in hit_counts]) >= 0.95 - TOLERANCE
    assert np.mean([bound(True, hits, n, 0.95).lower <= rate for hits in hit_counts]) >= 0.95 - TOLERANCE


def test_wilson_bounds_keep_confidence_on_average() -> None:
    generator = np.random.default_rng(9)
    covered = []
    for rate in np.linspace(0.01, 0.5, 40):
        hit_counts = generator.binomial(300, rate, 400)
        covered += [bound(False, hits, 300, 0.95).lower <= rate for hits in hit_counts]
        covered += [bound(False, hits, 300, 0.95).upper >= rate for hits in hit_counts]
    assert 0.94 <= np.mean(covered) <= 0.96


@pytest.mark.parametrize(("rate", "other_rate"), [(0.01, 0.01), (0.05, 0.02), (0.2, 0.2)])
def test_rate_difference_keeps_confidence(rate: float, other_rate: float) -> None:
    generator = np.random.default_rng(10)
    pairs = zip(generator.binomial(800, rate, TRIALS), generator.binomial(1500, other_rate, TRIALS), strict=True)
    differences = [
        stats.bound_difference(bound(False, one, 800, 0.95), bound(False, two, 1500, 0.95)) for one, two in pairs
    ]
    for covered in (
        np.mean([each.upper >= rate - other_rate for each in differences]),
        np.mean([each.lower <= rate - other_rate for each in differences]),
    ):
        assert covered >= 0.945 - TOLERANCE


def count_clusters(cluster: npt.NDArray[np.int64], hit: npt.NDArray[np.bool_]) -> stats.ClusterSums:
    sizes = np.bincount(cluster)
    hits = np.bincount(cluster, weights=hit).astype(int)[sizes > 0]
    sizes = sizes[sizes > 0]
    return stats.ClusterSums(
        len(sizes), int(sizes.sum()), int(hits.sum()),
        int((hits * hits).sum()), int((hits * sizes).sum()), int((sizes * sizes).sum()),
    )  # fmt: skip


def draw_clustered(generator: np.random.Generator, traces: int) -> tuple[npt.NDArray[np.int64], Values]:
    """Return one to nine calls per trace; slow calls are correlated within a trace."""
    cluster = np.repeat(np.arange(traces), generator.integers(1, 10, traces))
    return cluster, np.exp(4 + generator.normal(0, 0.9, traces)[cluster] + generator.normal(0, 0.4, len(cluster)))


@pytest.mark.parametrize("share", ["0.5", "0.9"])
def test_clustered_values_reduce_sample_size(share: str) -> None:
    generator = np.random.default_rng(11)
    true = np.quantile(draw_clustered(generator, 300_000)[1], float(share))
    clustered, naive = [], []
    for _ in range(TRIALS // 2):
        cluster, values = draw_clustered(generator, 150)
        ordered, n = np.sort(values), len(values)
        estimate = ordered[math.ceil(float(share) * n) - 1]
        size = math.floor(count_clusters(cluster, values <= estimate).effective_size)
        rank = stats.bound_quantile_ranks(size, Decimal(share), 0.95)[1]
        assert rank is not None
        clustered.append(ordered[min(n, -(-rank * n // size)) - 1] >= true)
        naive_rank = stats.bound_quantile_ranks(n, Decimal(share), 0.95)[1]
        naive.append(naive_rank is not None and ordered[naive_rank - 1] >= true)
    assert np.mean(naive) < 0.9  # the correlation matters
    assert np.mean(clustered) >= 0.93


def test_clustered_rates_keep_confidence() -> None:
    generator = np.random.default_rng(12)
    rate, clustered, naive = 0.1, [], []
    for _ in range(TRIALS):
        sizes = generator.integers(1, 10, 200)
        hits = np.where(
            generator.random(200) < 0.5,
            generator.binomial(sizes, rate),
            np.where(generator.random(200) < rate, sizes, 0),
        )
        n, total = int(sizes.sum()), int(hits.sum())
        size = stats.ClusterSums(
            200, n, total, int((hits * hits).sum()), int((hits * sizes).sum()), int((sizes * sizes).sum())
        ).effective_size
        clustered.append(stats.bound_rate_wilson(total / n * size, size, 0.95).upper >= rate)
        naive.append(stats.bound_rate_wilson(total, n, 0.95).upper >= rate)
    assert np.mean(naive) < 0.9
    # a little below 0.95, because the design effect is itself an estimate
    assert np.mean(clustered) >= 0.92


def test_effective_size_without_variation() -> None:
    assert stats.ClusterSums(7, 7, 0, 0, 0, 7).effective_size == 7
    assert stats.ClusterSums(5, 20, 0, 0, 0, 80).effective_size == 5
    assert stats.ClusterSums(5, 20, 20, 80, 80, 80).effective_size == 5
    assert stats.ClusterSums(1, 20, 3, 9, 60, 400).effective_size == 1
    # every trace has the same share: a design effect below one cannot be estimated
    assert stats.ClusterSums(10, 20, 10, 10, 20, 40).effective_size == 10


# ## Gates


EVALUATIONS, SAMPLE = 20, 60


def count_alarms(confidence: float, *, exact: bool, rate: float = 0.01) -> float:
    """Simulate twenty evaluations of a service with the limit as its error rate; return how often one fails."""
    generator = np.random.default_rng(13)
    cumulative_hits = generator.binomial(SAMPLE, rate, (TRIALS, EVALUATIONS)).cumsum(axis=1)
    alarms = [
        any(bound(exact, hits, SAMPLE * (index + 1), confidence).lower > rate for index, hits in enumerate(row))
        for row in cumulative_hits.tolist()
    ]
    return float(np.mean(alarms))


def test_repeated_evaluation_limits_false_alarms() -> None:
    shared = 1 - 0.05 / EVALUATIONS
    assert count_alarms(0.95, exact=False) > 0.15  # without dividing the error
    assert count_alarms(shared, exact=True) <= 0.05
    assert count_alarms(shared, exact=False) > count_alarms(shared, exact=True)  # the reason for exact bounds


def test_repeated_baseline_comparison_limits_false_alarms() -> None:
    generator, rate, shared = np.random.default_rng(14), 0.02, 1 - 0.05 / EVALUATIONS
    baseline = generator.binomial(5000, rate, TRIALS // 2).tolist()
    cumulative_hits = generator.binomial(SAMPLE, rate, (TRIALS // 2, EVALUATIONS)).cumsum(axis=1).tolist()
    alarms = []
    for baseline_hits, row in zip(baseline, cumulative_hits, strict=True):
        reference = bound(True, baseline_hits, 5000, shared)
        differences = (
            stats.bound_difference(bound(True, hits, SAMPLE * (index + 1), shared), reference)
            for index, hits in enumerate(row)
        )
        alarms.append(any(each.lower > 0 for each in differences))
    assert np.mean(alarms) <= 0.05


def test_repeated_quantile_evaluation_limits_false_alarms() -> None:
    generator, share, shared = np.random.default_rng(15), Decimal("0.95"), 1 - 0.05 / EVALUATIONS
    true = math.exp(4 + 1.6448536269514722)
    ranks = [stats.bound_quantile_ranks(SAMPLE * (index + 1), share, shared)[0] for index in range(EVALUATIONS)]
    alarms = []
    for _ in range(TRIALS):
        values = draw_skewed(generator, SAMPLE * EVALUATIONS)
        below = (values <= true).reshape(EVALUATIONS, SAMPLE).sum(axis=1).cumsum()
        # the value of that rank is above the true quantile if fewer values than the rank are below it
        alarms.append(any(rank is not None and n < rank for rank, n in zip(ranks, below.tolist(), strict=True)))
    assert np.mean(alarms) <= 0.05
