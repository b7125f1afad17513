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


def sum_clusters(cluster: npt.NDArray[np.int64], hit: npt.NDArray[np.bool_]) -> tuple[Values, Values]:
    """Return the numbers of values and of hits per cluster."""
    sizes = np.bincount(cluster)
    return sizes[sizes > 0].astype(float), np.bincount(cluster, weights=hit)[sizes > 0]


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
        size = math.floor(stats.compute_effective_size(*sum_clusters(cluster, values <= estimate)))
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
        size = stats.compute_effective_size(sizes.astype(float), hits.astype(float))
        clustered.append(stats.bound_rate_wilson(total / n * size, size, 0.95).upper >= rate)
        naive.append(stats.bound_rate_wilson(total, n, 0.95).upper >= rate)
    assert np.mean(naive) < 0.9
    # a little below 0.95, because the design effect is itself an estimate
    assert np.mean(clustered) >= 0.92


@pytest.mark.parametrize(
    ("counts", "hits", "size"),
    [
        ([1] * 7, [0] * 7, 7),
        ([4] * 5, [0] * 5, 5),
        ([4] * 5, [4] * 5, 5),
        ([20], [3], 1),
        ([2] * 10, [1] * 10, 10),  # every trace has the same share: a design effect below one cannot be estimated
    ],
)
def test_effective_size_without_variation(counts: list[int], hits: list[int], size: int) -> None:
    assert stats.compute_effective_size(np.array(counts, float), np.array(hits, float)) == size


def draw_drifting(generator: np.random.Generator, n: int) -> Values:
    """Return log-normal values whose level drifts slowly: neighbours are alike."""
    level = np.zeros(n)
    for at in range(1, n):
        level[at] = 0.8 * level[at - 1] + 0.6 * generator.normal()
    return np.exp(0.3 * level + generator.normal(0, 0.5, n))


def test_neighbours_that_are_alike_widen_the_bounds() -> None:
    generator = np.random.default_rng(13)
    true = math.exp((0.3**2 + 0.5**2) / 2)
    blocks, naive = [], []
    for _ in range(TRIALS // 2):
        values = draw_drifting(generator, 300)
        mean, error, clusters = stats.estimate_ratio(np.ones(300), values)
        bounds = stats.bound_mean(mean, error, clusters, mean, 0.95)
        blocks += [bounds.upper >= true, bounds.lower <= true]
        half = 1.65 * values.std() / math.sqrt(300)
        naive += [values.mean() + half >= true, values.mean() - half <= true]
    assert np.mean(naive) < 0.88
    assert np.mean(blocks) >= 0.91


def test_error_of_independent_values_is_hardly_larger_with_blocks() -> None:
    generator = np.random.default_rng(14)
    ratios = []
    for _ in range(400):
        values = generator.lognormal(0, 0.5, 300)
        ratios.append(stats.estimate_ratio(np.ones(300), values)[1] / (values.std() / math.sqrt(300)))
    assert np.mean(ratios) < 1.15
