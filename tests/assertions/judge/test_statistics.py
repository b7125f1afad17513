"""Bounds hold as often as they say: by known values, and by simulation with fixed seeds."""

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
# what a share of so many trials may fall short of 95 % by chance, once in a thousand
LUCK = 3.1 * math.sqrt(0.95 * 0.05 / TRIALS)


# ## Known values


def test_wilson_and_newcombe_as_published() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857 and 873): 81 of 263; 56 of 70 against 48 of 80."""
    alone = stats.bound_rate_wilson(81, 263, 0.975)
    assert (round(alone.lower, 4), round(alone.upper, 4)) == (0.2553, 0.3662)
    difference = stats.bound_difference(stats.bound_rate_wilson(56, 70, 0.975), stats.bound_rate_wilson(48, 80, 0.975))
    assert (round(difference.lower, 4), round(difference.upper, 4)) == (0.0524, 0.3339)


def test_exact_bounds_as_published() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857), Clopper & Pearson's: 81 of 263, 0 of 20."""
    bounds = stats.bound_rate_clopper_pearson(81, 263, 0.975)
    assert (round(bounds.lower, 4), round(bounds.upper, 4)) == (0.2527, 0.3676)
    none = stats.bound_rate_clopper_pearson(0, 20, 0.975)
    assert (none.lower, round(none.upper, 4)) == (0, 0.1684)
    assert stats.bound_rate_clopper_pearson(20, 20, 0.975).upper == 1


@pytest.mark.parametrize(("share", "least"), [("0.5", 5), ("0.9", 29), ("0.95", 59), ("0.99", 299), ("0.999", 2995)])
def test_the_least_that_bounds_a_quantile_from_above(share: str, least: int) -> None:
    assert stats.compute_sample_size_for_quantile(Decimal(share), 0.95) == least
    assert stats.bound_quantile_ranks(least, Decimal(share), 0.95)[1] == least
    assert stats.bound_quantile_ranks(least - 1, Decimal(share), 0.95)[1] is None


# ## Coverage


def draw_skewed(dice: np.random.Generator, n: int) -> Values:
    return dice.lognormal(4, 1, n)


def draw_bimodal(dice: np.random.Generator, n: int) -> Values:
    slow = dice.random(n) < 0.06
    return np.where(slow, dice.normal(900, 40, n), dice.normal(80, 10, n))


@pytest.mark.parametrize("draw", [draw_skewed, draw_bimodal])
@pytest.mark.parametrize(("share", "n"), [("0.5", 30), ("0.95", 60), ("0.95", 400), ("0.99", 700)])
def test_order_statistics_bound_quantiles_of_any_shape(
    draw: Callable[[np.random.Generator, int], Values], share: str, n: int
) -> None:
    dice = np.random.default_rng(7)
    true = np.quantile(draw(dice, 2_000_000), float(share))
    lower, upper = stats.bound_quantile_ranks(n, Decimal(share), 0.95)
    samples = np.sort([draw(dice, n) for _ in range(TRIALS)], axis=1)
    assert upper is not None
    assert np.mean(samples[:, upper - 1] >= true) >= 0.95 - LUCK
    if lower is not None:
        assert np.mean(samples[:, lower - 1] <= true) >= 0.95 - LUCK


@cache
def bound(exact: bool, hits: int, n: int, confidence: float) -> stats.ConfidenceBounds:
    return (stats.bound_rate_clopper_pearson if exact else stats.bound_rate_wilson)(hits, n, confidence)


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("n", [50, 300, 2000])
def test_exact_bounds_never_err_more_often_than_they_say(rate: float, n: int) -> None:
    found = np.random.default_rng(8).binomial(n, rate, TRIALS)
    assert np.mean([bound(True, hits, n, 0.95).upper >= rate for hits in found]) >= 0.95 - LUCK
    assert np.mean([bound(True, hits, n, 0.95).lower <= rate for hits in found]) >= 0.95 - LUCK


def test_wilson_is_right_on_average() -> None:
    dice = np.random.default_rng(9)
    covered = []
    for rate in np.linspace(0.01, 0.5, 40):
        found = dice.binomial(300, rate, 400)
        covered += [bound(False, hits, 300, 0.95).lower <= rate for hits in found]
        covered += [bound(False, hits, 300, 0.95).upper >= rate for hits in found]
    assert 0.94 <= np.mean(covered) <= 0.96


@pytest.mark.parametrize(("here", "there"), [(0.01, 0.01), (0.05, 0.02), (0.2, 0.2)])
def test_differences_of_rates(here: float, there: float) -> None:
    dice = np.random.default_rng(10)
    pairs = zip(dice.binomial(800, here, TRIALS), dice.binomial(1500, there, TRIALS), strict=True)
    found = [stats.bound_difference(bound(False, one, 800, 0.95), bound(False, two, 1500, 0.95)) for one, two in pairs]
    for covered in (
        np.mean([each.upper >= here - there for each in found]),
        np.mean([each.lower <= here - there for each in found]),
    ):
        assert covered >= 0.945 - LUCK


def count_clusters(cluster: npt.NDArray[np.int64], hit: npt.NDArray[np.bool_]) -> stats.ClusterSums:
    sizes = np.bincount(cluster)
    hits = np.bincount(cluster, weights=hit).astype(int)[sizes > 0]
    sizes = sizes[sizes > 0]
    return stats.ClusterSums(
        len(sizes), int(sizes.sum()), int(hits.sum()),
        int((hits * hits).sum()), int((hits * sizes).sum()), int((sizes * sizes).sum()),
    )  # fmt: skip


def draw_clustered(dice: np.random.Generator, traces: int) -> tuple[npt.NDArray[np.int64], Values]:
    """Calls of traces: from one to nine of each, and slow ones come together."""
    cluster = np.repeat(np.arange(traces), dice.integers(1, 10, traces))
    return cluster, np.exp(4 + dice.normal(0, 0.9, traces)[cluster] + dice.normal(0, 0.4, len(cluster)))


@pytest.mark.parametrize("share", ["0.5", "0.9"])
def test_values_of_one_trace_count_for_less(share: str) -> None:
    dice = np.random.default_rng(11)
    true = np.quantile(draw_clustered(dice, 300_000)[1], float(share))
    clustered, naive = [], []
    for _ in range(TRIALS // 2):
        cluster, values = draw_clustered(dice, 150)
        ordered, n = np.sort(values), len(values)
        estimate = ordered[math.ceil(float(share) * n) - 1]
        size = math.floor(count_clusters(cluster, values <= estimate).effective_size)
        rank = stats.bound_quantile_ranks(size, Decimal(share), 0.95)[1]
        assert rank is not None
        clustered.append(ordered[min(n, -(-rank * n // size)) - 1] >= true)
        alone = stats.bound_quantile_ranks(n, Decimal(share), 0.95)[1]
        naive.append(alone is not None and ordered[alone - 1] >= true)
    assert np.mean(naive) < 0.9  # so it does matter
    assert np.mean(clustered) >= 0.93


def test_rates_of_clusters() -> None:
    dice = np.random.default_rng(12)
    rate, clustered, naive = 0.1, [], []
    for _ in range(TRIALS):
        sizes = dice.integers(1, 10, 200)
        hits = np.where(dice.random(200) < 0.5, dice.binomial(sizes, rate), np.where(dice.random(200) < rate, sizes, 0))
        n, total = int(sizes.sum()), int(hits.sum())
        size = stats.ClusterSums(
            200, n, total, int((hits * hits).sum()), int((hits * sizes).sum()), int((sizes * sizes).sum())
        ).effective_size
        clustered.append(stats.bound_rate_wilson(total / n * size, size, 0.95).upper >= rate)
        naive.append(stats.bound_rate_wilson(total, n, 0.95).upper >= rate)
    assert np.mean(naive) < 0.9
    # a little short, as the design effect is an estimate itself
    assert np.mean(clustered) >= 0.92


def test_the_size_of_samples_without_variation() -> None:
    assert stats.ClusterSums(7, 7, 0, 0, 0, 7).effective_size == 7
    assert stats.ClusterSums(5, 20, 0, 0, 0, 80).effective_size == 5
    assert stats.ClusterSums(5, 20, 20, 80, 80, 80).effective_size == 5
    assert stats.ClusterSums(1, 20, 3, 9, 60, 400).effective_size == 1
    # every trace has the same share: there is no telling a design effect below one
    assert stats.ClusterSums(10, 20, 10, 10, 20, 40).effective_size == 10


# ## Gates


LOOKS, A_LOOK = 20, 60


def count_alarms(confidence: float, *, exact: bool, rate: float = 0.01) -> float:
    """Simulate twenty looks at a service whose error rate is as good as the limit; say how often one look fails."""
    dice = np.random.default_rng(13)
    seen = dice.binomial(A_LOOK, rate, (TRIALS, LOOKS)).cumsum(axis=1)
    alarms = [
        any(bound(exact, hits, A_LOOK * (look + 1), confidence).lower > rate for look, hits in enumerate(row))
        for row in seen.tolist()
    ]
    return float(np.mean(alarms))


def test_twenty_looks_at_an_unchanged_service_raise_a_false_alarm_in_one_of_twenty_at_most() -> None:
    shared = 1 - 0.05 / LOOKS
    assert count_alarms(0.95, exact=False) > 0.15  # were nothing shared out
    assert count_alarms(shared, exact=True) <= 0.05
    assert count_alarms(shared, exact=False) > count_alarms(shared, exact=True)  # why the bounds are exact


def test_twenty_looks_at_an_unchanged_version_beside_its_baseline() -> None:
    dice, rate, shared = np.random.default_rng(14), 0.02, 1 - 0.05 / LOOKS
    baseline = dice.binomial(5000, rate, TRIALS // 2).tolist()
    seen = dice.binomial(A_LOOK, rate, (TRIALS // 2, LOOKS)).cumsum(axis=1).tolist()
    alarms = []
    for before, row in zip(baseline, seen, strict=True):
        there = bound(True, before, 5000, shared)
        differences = (
            stats.bound_difference(bound(True, hits, A_LOOK * (look + 1), shared), there)
            for look, hits in enumerate(row)
        )
        alarms.append(any(each.lower > 0 for each in differences))
    assert np.mean(alarms) <= 0.05


def test_twenty_looks_at_an_unchanged_quantile() -> None:
    dice, share, shared = np.random.default_rng(15), Decimal("0.95"), 1 - 0.05 / LOOKS
    true = math.exp(4 + 1.6448536269514722)
    ranks = [stats.bound_quantile_ranks(A_LOOK * (look + 1), share, shared)[0] for look in range(LOOKS)]
    alarms = []
    for _ in range(TRIALS):
        values = draw_skewed(dice, A_LOOK * LOOKS)
        below = (values <= true).reshape(LOOKS, A_LOOK).sum(axis=1).cumsum()
        # the value of that rank lies above the true one: fewer values than that lie below
        alarms.append(any(rank is not None and n < rank for rank, n in zip(ranks, below.tolist(), strict=True)))
    assert np.mean(alarms) <= 0.05
