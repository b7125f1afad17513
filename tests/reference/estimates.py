"""Estimates from samples: exact binomial bounds of quantiles, score or exact bounds of rates, Student's t for means."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace
from scipy.special import betaincinv, stdtrit

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.aggregates import percent_of
from spanproof.tests.reference.conditions import ORDERS, convert, value_of
from spanproof.tests.reference.numbers import Outcome, group_keys, list_values
from spanproof.tests.reference.selections import Group, GroupKey, World, select

Values: TypeAlias = "list[tuple[str, Fraction]]"  # each with its trace


class Bounds(Struct, frozen=True):
    """A number with bounds that each hold at the requested confidence."""

    value: float
    lower: float
    upper: float


class Sample(Struct, frozen=True):
    """The numbers of values and their sums by trace, in the order of their starts; of a quantile also the values."""

    node: s.Function
    counts: dict[str, int]
    sums: dict[str, Fraction]
    values: tuple[Fraction, ...] = ()
    is_calls: bool = False

    @property
    def n(self) -> int:
        return sum(self.counts.values())

    def bound(self, confidence: float) -> Bounds:
        if self.node.name == "error_rate":
            share = sum(self.sums.values()) / self.n
            return _bound_rate(share, _effective_size(self.counts, self.sums), confidence)
        if self.node.name == "avg":
            return self._bound_mean(confidence)
        values = sorted(self.values)
        share = percent_of(self.node) / 100
        estimate = values[math.ceil(share * len(values)) - 1]
        return _bound_quantile(values, estimate, math.floor(self._size_below(estimate)), share, confidence)

    def _size_below(self, estimate: Fraction) -> Fraction:
        """Return the effective size of the values, by which of them are at most the estimate. Sums are the values."""
        hits: dict[str, Fraction] = defaultdict(Fraction)
        at = 0
        for trace, count in self.counts.items():
            hits[trace] = Fraction(sum(value <= estimate for value in self.values[at : at + count]))
            at += count
        return _effective_size(self.counts, hits)

    def _bound_mean(self, confidence: float) -> Bounds:
        mean = sum(self.sums.values()) / self.n
        squares, m = _find_variation(self.counts, self.sums)
        if m > 1 and not squares:
            unit = 1.0 if self.is_calls else abs(float(mean)) or 1.0
            half = unit * (1 - (1 - confidence) ** (1 / m))
        elif m == 1:
            half = math.inf
        else:
            half = float(stdtrit(m - 1, confidence)) * math.sqrt(squares) / self.n
        return Bounds(float(mean), float(mean) - half, float(mean) + half)


def judge_estimate(expectation: s.Expectation, world: World) -> Outcome:
    """Judge a claim about a population: the tests of its groups share the allowed error (Holm), the worst counts."""
    if not world.all_settled:
        return "open"
    tests = _list_tests(expectation, world)
    if expectation.having is not None:
        least = _number(expectation.having.value)
        tests = [each for each in tests if ORDERS[expectation.having.operator](min(sample.n for sample in each), least)]
    if not tests:
        return "nothing"
    error = 1 - (0.95 if expectation.confidence is None else _number(expectation.confidence))
    decided: list[Outcome] = []
    while tests:
        outcomes = [_decide(expectation, each, 1 - error / len(tests)) for each in tests]
        open_ = [each for each, outcome in zip(tests, outcomes, strict=True) if outcome == "open"]
        decided += [outcome for outcome in outcomes if outcome != "open"]
        if len(open_) == len(tests):
            decided.append("open")
            break
        tests = open_
    return find_worst_outcome(decided)


def _list_tests(expectation: s.Expectation, world: World) -> list[tuple[Sample, ...]]:
    """Return the samples of each group: of the traces, and of the baseline if the claim is about it."""
    claim, by = expectation.claim, expectation.by
    if isinstance(claim, s.BaselineTest):
        current, baseline = _read_samples(claim.value, by, (world, world.in_baseline()))
        return [(current[key], baseline[key]) for key in current if key in baseline]
    assert isinstance(claim, s.ComparisonClaim)
    assert isinstance(claim.condition, s.Compare)
    (current,) = _read_samples(claim.condition.left, by, (world,))
    return [(sample,) for sample in current.values()]


def _read_samples(
    node: s.Expression, by: tuple[s.Name, ...], worlds: tuple[World, ...]
) -> list[dict[GroupKey, Sample]]:
    assert isinstance(node, s.Function)
    inner = node.arguments[-1]
    if isinstance(inner, s.Function) and inner.name == "calls":
        return _read_calls(node, inner, by, worlds)
    claim = s.ComparisonClaim(s.Compare("==", node, node, node.at), node.at)
    samples = []
    for world in worlds:
        keys = group_keys(claim, by, world) if by else {()}
        groups = {key: list_values(node, replace(world, group=Group(by, key)) if by else world) for key in keys}
        samples.append({key: _make_sample(node, values, world) for key, values in groups.items() if values})
    return samples


def _make_sample(node: s.Function, values: Values, world: World) -> Sample:
    starts = _find_starts(world)
    ordered = sorted(values, key=lambda item: (starts[item[0]], item[0]))
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, Fraction] = defaultdict(Fraction)
    for trace, value in ordered:
        counts[trace] += 1
        sums[trace] += value
    return Sample(node, dict(counts), dict(sums), tuple(value for _, value in ordered))


def _find_starts(world: World) -> dict[str, int]:
    starts: dict[str, int] = {}
    for span in world.forest.spans:
        starts[span.trace_id] = min(starts.get(span.trace_id, span.start_ns), span.start_ns)
    return starts


def _read_calls(
    node: s.Function, inner: s.Function, by: tuple[s.Name, ...], worlds: tuple[World, ...]
) -> list[dict[GroupKey, Sample]]:
    """Return the calls per request: of the requests of those services that make calls of the group in any world."""
    selection = inner.arguments[0]
    assert isinstance(selection, s.CallSelection)
    callers: dict[GroupKey, set[str]] = defaultdict(set)
    calls = [
        [(world.group_of(call, by), world.row(call), call) for call in select(selection, world)] for world in worlds
    ]
    for found in calls:
        for key, _, call in found:
            callers[key].add(call.last.caller)  # type: ignore[union-attr]
    if not by and not callers:
        callers[()] = {span.service for world in worlds for span in select(selection.caller, world)}  # type: ignore[union-attr]
    samples: list[dict[GroupKey, Sample]] = []
    for world, found in zip(worlds, calls, strict=True):
        groups: dict[GroupKey, Sample] = {}
        for key, names in callers.items():
            counts: dict[str, int] = defaultdict(int)
            for span in select(selection.caller, world):
                if span.service in names:  # type: ignore[union-attr]
                    counts[world.row(span).trace_id] += 1
            sums = {trace: Fraction(0) for trace in counts}
            for group, row, _ in found:
                if group == key and row.trace_id in sums:
                    sums[row.trace_id] += 1
            if counts:
                starts = _find_starts(world)
                ordered = dict(sorted(counts.items(), key=lambda item: (starts[item[0]], item[0])))
                groups[key] = Sample(node, ordered, sums, is_calls=True)
        samples.append(groups)
    return samples


def _decide(expectation: s.Expectation, samples: tuple[Sample, ...], confidence: float) -> Outcome:
    claim = expectation.claim
    if isinstance(claim, s.ComparisonClaim):
        node = claim.condition
        assert isinstance(node, s.Compare)
        bounds = samples[0].bound(confidence)
        within = {ORDERS[node.operator](bound, _number(node.right)) for bound in (bounds.lower, bounds.upper)}
        return "open" if len(within) == 2 else "pass" if within == {True} else "fail"
    assert isinstance(claim, s.BaselineTest)
    sides = (1, -1) if claim.is_two_sided else (1,)
    is_rate = samples[0].node.name == "error_rate"
    if all(_excess(claim.margin, samples, confidence, side, is_rate)[1] <= 0 for side in sides):
        return "pass"
    strict = 1 - (1 - confidence) / len(sides)
    if any(_excess(claim.margin, samples, strict, side, is_rate)[0] > 0 for side in sides):
        return "fail"
    return "open"


def _excess(
    margin: s.Margin, samples: tuple[Sample, ...], confidence: float, side: int, is_rate: bool
) -> tuple[float, float]:
    """Return the bounds of the value less what the baseline allows, or (side -1) of the converse."""
    value, baseline = (sample.bound(confidence) for sample in samples)
    limits = [_allow(margin, each, side, is_rate) for each in (baseline.value, baseline.lower, baseline.upper)]
    allowed = Bounds(*limits)
    one, other = (value, allowed) if side > 0 else (allowed, value)
    difference = one.value - other.value
    return (
        difference - math.hypot(one.value - one.lower, other.upper - other.value),
        difference + math.hypot(one.upper - one.value, other.value - other.lower),
    )


def _allow(margin: s.Margin, value: float, side: int, is_rate: bool) -> float:
    if math.isinf(value):
        return value
    changes = []
    for part in (margin.value, margin.floor):
        if part is not None:
            is_share = isinstance(part, s.Number) and part.unit == "%" and not is_rate
            changes.append(_number(part) * (abs(value) if is_share else 1))
    return value + side * max(changes)


def _number(node: s.Expression) -> float:
    value = value_of(node, None)
    assert value is not None
    return float(convert(value, "number"))


def _find_variation(counts: dict[str, int], sums: dict[str, Fraction]) -> tuple[Fraction, int]:
    """Return the squared deviations of clusters, for an infinite number of them, and the number of clusters.

    The clusters are the traces or, if they deviate more, up to 10 blocks of at least 20 traces in a row.
    """
    mean = sum(sums.values(), Fraction(0)) / sum(counts.values())
    deviations = [sums[trace] - mean * counts[trace] for trace in counts]
    m = len(deviations)
    blocks = min(10, m // 20)
    found = [(_square(deviations), m)]
    if blocks >= 5:
        ends = [block * m // blocks for block in range(blocks + 1)]
        parts = [sum(deviations[begin:end], Fraction(0)) for begin, end in pairwise(ends)]
        found.append((_square(parts), blocks))
    return max(found, key=lambda each: each[0])


def _square(deviations: list[Fraction]) -> Fraction:
    m = len(deviations)
    return Fraction(m, m - 1) * sum(each * each for each in deviations) if m > 1 else Fraction(0)


def _effective_size(counts: dict[str, int], hits: dict[str, Fraction]) -> Fraction:
    """Return the effective sample size of hits in traces (Korn & Graubard 1998).

    It is the number of values divided by the design effect: the variance of the share of hits between traces,
    relative to that of as many independent values.
    """
    n, m = sum(counts.values()), len(counts)
    share = sum(hits.values(), Fraction(0)) / n
    squares, clusters = _find_variation(counts, hits)
    if clusters == m == n:
        return Fraction(n)
    if m == 1 or not squares or share in (0, 1):
        return Fraction(m)
    variance = squares / n**2
    return max(Fraction(1), min(Fraction(n), share * (1 - share) / variance))


def _bound_rate(share: Fraction, n: Fraction, confidence: float) -> Bounds:
    """Solve (p − share)² = z² p (1 − p) / n for p: Wilson's score bounds; above 99 %, Clopper and Pearson's."""
    hits, size = float(share * n), float(n)
    if confidence > 0.99:
        lower = float(betaincinv(hits, size - hits + 1, 1 - confidence)) if share > 0 else 0.0
        upper = float(betaincinv(hits + 1, size - hits, confidence)) if share < 1 else 1.0
        return Bounds(float(share), lower, upper)
    z = NormalDist().inv_cdf(confidence)
    a, b, c = 1 + z * z / size, -(2 * float(share) + z * z / size), float(share * share)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return Bounds(float(share), (-b - root) / (2 * a), (-b + root) / (2 * a))


def _bound_quantile(
    values: list[Fraction], estimate: Fraction, size: int, share: Fraction, confidence: float
) -> Bounds:
    """Return the order statistics that bound the quantile from below and above at the confidence.

    Their ranks among `size` independent values are scaled to the ranks of all values.
    """
    probabilities = [math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)]
    below = [rank for rank in range(1, size + 1) if sum(probabilities[rank:]) >= confidence]
    above = [rank for rank in range(1, size + 1) if sum(probabilities[:rank]) >= confidence]
    n = len(values)
    return Bounds(
        float(estimate),
        float(values[max(1, max(below) * n // size) - 1]) if below else -math.inf,
        float(values[math.ceil(Fraction(min(above) * n, size)) - 1]) if above else math.inf,
    )


def find_worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst of the verdicts on groups."""
    remaining = set(outcomes) or {"nothing"}
    return next(each for each in ("fail", "open", "nothing", "pass") if each in remaining)  # type: ignore[return-value]
