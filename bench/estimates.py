"""Simulations of the tests against a baseline: how often they err, and how many traces they need.

Families: a proof of 100 groups without any change, at one evaluation and at twenty. Power: one group that is 20 %
slower, or that fails 1 % more often. Coverage: how often a bound at 95 % holds, where the level drifts or the values
of a trace are alike. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from decimal import Decimal
from typing import Any, Final, TypeAlias

import numpy as np

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.judge import statistics as stats
from spanproof.assertions.judge.estimates import AllowedChange, DifferenceTest, EstimatedClaim, decide_together
from spanproof.assertions.judge.samples import MeanSample, QuantileSample, RateSample, Sample
from spanproof.query_lang.syntax.vocabulary import ValueType

Array: TypeAlias = "np.ndarray[Any, Any]"
GROUPS: Final = 100
EVALUATIONS: Final = 20
ERROR: Final = Decimal("0.05")
LEVEL: Final = np.exp(4.0)
NO_CHANGE: Final = AllowedChange(0, 0)


def draw_durations(generator: np.random.Generator, n: int, factor: float = 1.0) -> Array:
    """Return log-normal durations in milliseconds."""
    return factor * generator.lognormal(4, 0.5, n)


def make_quantile(values: Array, share: str) -> Sample:
    """Return the sample of a quantile of independent values."""
    ordered = np.sort(values)
    decimal = Decimal(share)
    estimate = ordered[int(np.ceil(float(decimal) * len(values))) - 1]
    size = stats.compute_effective_size(np.ones(len(values)), (values <= estimate).astype(float))
    return QuantileSample(len(values), ordered, decimal, int(size))


def make_rate(hits: Array) -> Sample:
    """Return the sample of a rate of independent values."""
    size = stats.compute_effective_size(np.ones(len(hits)), hits.astype(float))
    return RateSample(len(hits), int(hits.sum()), size)


def make_mean(values: Array) -> Sample:
    """Return the sample of a mean of independent values."""
    mean, error, clusters = stats.estimate_ratio(np.ones(len(values)), values)
    return MeanSample(len(values), mean, error, clusters, mean)


def fails(tests: list[DifferenceTest], error_fraction: Decimal) -> bool:
    """Return whether a proof of these tests raises an alarm."""
    claim = EstimatedClaim(tuple(tests), ERROR, ValueType("duration"))
    return any(each.outcome is Outcome.FAIL for each in decide_together([claim], error_fraction)[0])


def simulate_family(generator: np.random.Generator, repetitions: int, evaluations: int) -> float:
    """Return how often 100 unchanged groups, tested without a margin, raise an alarm at any of the evaluations."""
    alarms = 0
    for _ in range(repetitions):
        groups = [(draw_durations(generator, 400), draw_durations(generator, 400)) for _ in range(GROUPS)]
        for evaluation in range(1, evaluations + 1):
            seen = 400 * evaluation // evaluations
            tests = [
                DifferenceTest(
                    (str(number),), make_quantile(new[:seen], "0.5"), make_quantile(old, "0.5"), NO_CHANGE, False
                )
                for number, (new, old) in enumerate(groups)
            ]
            if fails(tests, 1 / Decimal(evaluations)):
                alarms += 1
                break
    return alarms / repetitions


def simulate_power(generator: np.random.Generator, repetitions: int, n: int) -> tuple[float, float]:
    """Return how often +20 % in the median is found with a margin of 5 %, and +1 % errors without a margin."""
    slower = failing = 0
    for _ in range(repetitions):
        new, old = draw_durations(generator, n, 1.2), draw_durations(generator, n)
        test = DifferenceTest((), make_quantile(new, "0.5"), make_quantile(old, "0.5"), AllowedChange(0.05, 0), False)
        slower += fails([test], Decimal(1))
        more, less = generator.random(n) < 0.02, generator.random(n) < 0.01
        failing += fails([DifferenceTest((), make_rate(more), make_rate(less), AllowedChange(0, 0), False)], Decimal(1))
    return slower / repetitions, failing / repetitions


def draw_drifting(generator: np.random.Generator, n: int) -> Array:
    """Return durations whose level wanders, by 30 % and over a twentieth of the window."""
    memory = float(np.exp(-20 / n))
    level = np.empty(n)
    level[0] = generator.normal()
    for at in range(1, n):
        level[at] = memory * level[at - 1] + np.sqrt(1 - memory**2) * generator.normal()
    return draw_durations(generator, n) * np.exp(0.3 * level)


def simulate_drift(generator: np.random.Generator, repetitions: int, n: int) -> tuple[float, float]:
    """Return how often the upper and the lower bound of a mean hold, with traces only, and with blocks of time."""
    true = LEVEL * np.exp((0.5**2 + 0.3**2) / 2)
    by_trace = by_block = 0
    for _ in range(repetitions):
        values = draw_drifting(generator, n)
        error = values.std(ddof=1) / np.sqrt(n)
        naive = stats.bound_mean(values.mean(), error, n, 0, 0.95)
        bounds = make_mean(values).bound(0.95)
        by_trace += int(naive.upper >= true) + int(naive.lower <= true)
        by_block += int(bounds.upper >= true) + int(bounds.lower <= true)
    return by_trace / repetitions / 2, by_block / repetitions / 2


def simulate_clusters(generator: np.random.Generator, repetitions: int, traces: int) -> float:
    """Return how often the bounds of an error rate hold, where the one to nine calls of a trace fail together."""
    held = 0
    for _ in range(repetitions):
        counts = generator.integers(1, 10, traces).astype(float)
        hits = np.where(generator.random(traces) < 0.1, counts, 0.0)
        size = stats.compute_effective_size(counts, hits)
        bounds = stats.bound_rate(hits.sum() / counts.sum() * size, size, 0.95)
        held += int(bounds.upper >= 0.1) + int(bounds.lower <= 0.1)
    return held / repetitions / 2


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400, help="of each simulation; 400")
    repetitions = parser.parse_args().repetitions
    generator = np.random.default_rng(20)
    figures: dict[str, object] = {}
    for evaluations in (1, EVALUATIONS):
        share = simulate_family(generator, max(20, repetitions // evaluations), evaluations)
        print(f"false alarms of {GROUPS} groups, {evaluations} evaluations: {share:.1%}", flush=True)
        figures[f"false_alarms_{evaluations}"] = share
    for n in (200, 1_000, 5_000):
        slower, failing = simulate_power(generator, repetitions, n)
        print(f"{n} traces: +20 % found in {slower:.1%}, +1 % errors in {failing:.1%}", flush=True)
        figures[f"power_{n}"] = {"slower": slower, "failing": failing}
    for n in (200, 1_000):
        by_trace, by_block = simulate_drift(generator, repetitions, n)
        print(
            f"{n} traces that drift: bounds hold in {by_trace:.1%} by trace, {by_block:.1%} by trace or block",
            flush=True,
        )
        clustered = simulate_clusters(generator, repetitions, n)
        print(f"{n} traces whose calls fail together: bounds hold in {clustered:.1%}", flush=True)
        figures[f"coverage_{n}"] = {"drift_by_trace": by_trace, "drift": by_block, "clusters": clustered}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
