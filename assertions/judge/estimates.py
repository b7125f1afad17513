"""Tests about the population of a sample: ``with confidence``, ``not worse than`` and ``within … of`` baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from spanproof.assertions.findings.comparators import COMPARATORS
from spanproof.assertions.findings.finding_counts import GroupKey, rank_group
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.judge import statistics as stats
from spanproof.assertions.judge.samples import QuantileSample, RateSample, Sample, read_samples
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, to_decimal
from spanproof.query_lang.check.types import TypeChecker
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

if TYPE_CHECKING:
    import duckdb

DEFAULT_CONFIDENCE: Final = Decimal("0.95")
_MAX_CONFIDENCE: Final = 1 - 1e-12  # the error of a higher one cannot be computed


class AllowedChange(Struct, frozen=True):
    """A change from the baseline that is allowed: the larger one of a share of it and an absolute change."""

    relative: float
    absolute: float

    def raise_limit(self, value: float) -> float:
        """Return the largest allowed value for a value of the baseline."""
        return value if math.isinf(value) else value + max(self.relative * abs(value), self.absolute)

    def lower_limit(self, value: float) -> float:
        """Return the smallest allowed value for a value of the baseline."""
        return value if math.isinf(value) else value - max(self.relative * abs(value), self.absolute)


class Decision(Struct, frozen=True):
    """Outcome of a test at a confidence, and the bounds that it rests on: of the value, or of the excess.

    The excess is the difference to the baseline, less the margin. `needed` is the number of values that would decide.
    """

    outcome: Outcome
    confidence: float
    bounds: stats.ConfidenceBounds
    needed: int | None = None


class LimitTest(Struct, frozen=True):
    """Test of the value of a population against a fixed limit: the interval must lie within, or beyond, the limit."""

    group: GroupKey
    sample: Sample
    operator: str
    limit: float

    def decide(self, confidence: float) -> Decision:
        """Return the outcome at a confidence (of each bound)."""
        holds = COMPARATORS[self.operator]
        bounds = self.sample.bound(confidence)
        best, worst = (bounds.lower, bounds.upper) if "<" in self.operator else (bounds.upper, bounds.lower)
        if holds(worst, self.limit):
            return Decision(Outcome.PASS, confidence, bounds)
        if not holds(best, self.limit):
            return Decision(Outcome.FAIL, confidence, bounds)
        needed = _compute_needed_size(self.sample, self.limit, confidence)
        return Decision(Outcome.INCONCLUSIVE, confidence, bounds, needed)

    def measure_distance(self) -> float:
        """Return how far the value is from the limit."""
        return abs(self.sample.estimate - self.limit)


class DifferenceTest(Struct, frozen=True):
    """Test of the values of two populations: the one is at most a margin above (two-sided: from) the baseline."""

    group: GroupKey
    sample: Sample
    baseline: Sample
    margin: AllowedChange
    is_two_sided: bool

    def decide(self, confidence: float) -> Decision:
        """Return the outcome at a confidence.

        Non-inferiority, or equivalence by two one-sided tests (Schuirmann 1987, J. Pharmacokin. Biopharm. 15,
        657-680). A failure of either side of the two shares the error.
        """
        upper = self._bound_excess(confidence, +1)
        if not self.is_two_sided:
            return self._conclude(upper, upper, confidence)
        lower = self._bound_excess(confidence, -1)
        strict = 1 - (1 - confidence) / 2
        worse = max((self._bound_excess(strict, side) for side in (+1, -1)), key=lambda bounds: bounds.lower)
        return self._conclude(max(upper, lower, key=lambda bounds: bounds.upper), worse, confidence)

    def _conclude(
        self, for_pass: stats.ConfidenceBounds, for_failure: stats.ConfidenceBounds, confidence: float
    ) -> Decision:
        if for_pass.upper <= 0:
            return Decision(Outcome.PASS, confidence, for_pass)
        if for_failure.lower > 0:
            return Decision(Outcome.FAIL, confidence, for_failure)
        needed = self._compute_needed_size(for_pass, confidence)
        return Decision(Outcome.INCONCLUSIVE, confidence, for_pass, needed)

    def _bound_excess(self, confidence: float, side: int) -> stats.ConfidenceBounds:
        """Bound the excess of the value above (`side` +1), or below (-1), what the baseline allows."""
        value, baseline = self.sample.bound(confidence), self.baseline.bound(confidence)
        change = self.margin.raise_limit if side > 0 else self.margin.lower_limit
        allowed = stats.ConfidenceBounds(change(baseline.estimate), change(baseline.lower), change(baseline.upper))
        return stats.bound_difference(value, allowed) if side > 0 else stats.bound_difference(allowed, value)

    def _compute_needed_size(self, bounds: stats.ConfidenceBounds, confidence: float) -> int | None:
        """Return about how many values per side would decide, if both estimates stay; None if unknown."""
        minimum = max(_compute_minimum_size(each, confidence) for each in (self.sample, self.baseline))
        width = bounds.upper - bounds.estimate if bounds.estimate <= 0 else bounds.estimate - bounds.lower
        n = max(self.sample.n, self.baseline.n)
        if not math.isfinite(width) or not math.isfinite(bounds.estimate) or not bounds.estimate:
            return minimum or None
        needed = math.ceil(n * (width / bounds.estimate) ** 2)
        return max(needed, minimum) if needed < stats.MAX_SAMPLE_SIZE else None

    def measure_distance(self) -> float:
        """Return how far the value is from the baseline."""
        return abs(self.sample.estimate - self.baseline.estimate)


EstimateTest = LimitTest | DifferenceTest


class EstimatedClaim(Struct, frozen=True):
    """The tests of a claim, one per group, and the groups that are not tested.

    `unmatched` are the groups that only one of the two populations has, `small` are those that ``having`` leaves out.
    """

    tests: tuple[EstimateTest, ...]
    error: Decimal  # that the claim's confidence allows
    type: ValueType
    unmatched: tuple[tuple[GroupKey, bool], ...] = ()  # with whether it is new, not only in the baseline
    small: tuple[GroupKey, ...] = ()
    is_empty: tuple[bool, bool] = (False, False)  # the sample, the baseline


def read_tests(
    connection: duckdb.DuckDBPyConnection, expectation: s.Expectation, bindings: Bindings, traces: str
) -> EstimatedClaim:
    """Return the tests of a claim over the traces in the table `traces` and, if it is about them, in ``baseline``."""
    confidence = (
        DEFAULT_CONFIDENCE if expectation.confidence is None else to_decimal(evaluate(expectation.confidence, bindings))
    )
    claim, by = expectation.claim, expectation.by
    tests: list[EstimateTest]
    if isinstance(claim, s.BaselineTest):
        function = claim.value
        assert isinstance(function, s.Function)  # noqa: S101 (checked before)
        current, baseline = read_samples(connection, function, by, bindings, (traces, "baseline"))
        margin = _read_margin(claim.margin, bindings, is_rate=function.name == "error_rate")
        tests = [
            DifferenceTest(key, current[key], baseline[key], margin, claim.is_two_sided)
            for key in _sort_keys(current.keys() & baseline.keys())
        ]
        unmatched = tuple((key, key in current) for key in _sort_keys(current.keys() ^ baseline.keys()))
        is_empty = (not current, not baseline)
    else:
        assert isinstance(claim, s.ComparisonClaim)  # noqa: S101 (checked before)
        condition = claim.condition
        assert isinstance(condition, s.Compare)  # noqa: S101 (checked before)
        function = condition.left
        assert isinstance(function, s.Function)  # noqa: S101 (checked before)
        limit = float(to_decimal(evaluate(condition.right, bindings)))
        (current,) = read_samples(connection, function, by, bindings, (traces,))
        tests = [LimitTest(key, current[key], condition.operator, limit) for key in _sort_keys(current)]
        unmatched, is_empty = (), (not current, False)
    small: tuple[GroupKey, ...] = ()
    if expectation.having is not None:
        minimum = float(to_decimal(evaluate(expectation.having.value, bindings)))
        is_large = COMPARATORS[expectation.having.operator]
        small = tuple(test.group for test in tests if not is_large(_count_values(test), minimum))
        tests = [test for test in tests if is_large(_count_values(test), minimum)]
    type_ = TypeChecker().infer(function, bindings.scope)
    return EstimatedClaim(tuple(tests), 1 - confidence, type_, unmatched, small, is_empty)


def _sort_keys(keys: Iterable[GroupKey]) -> list[GroupKey]:
    return sorted(keys, key=rank_group)


def _count_values(test: EstimateTest) -> int:
    return test.sample.n if isinstance(test, LimitTest) else min(test.sample.n, test.baseline.n)


def _read_margin(node: s.Margin, bindings: Bindings, *, is_rate: bool) -> AllowedChange:
    """Read a margin. A percentage is a share of the baseline but, of a rate, percentage points."""
    relative = absolute = 0.0
    for part in (node.value, node.floor):
        if part is None:
            continue
        constant = evaluate(part, bindings)
        value = float(to_decimal(constant))
        if value < 0:
            raise MissingValue("a margin is negative")
        if constant is not None and constant.kind == "fraction" and not is_rate:
            relative = max(relative, value)
        else:
            absolute = max(absolute, value)
    return AllowedChange(relative, absolute)


def decide_together(claims: Iterable[EstimatedClaim], error_fraction: Decimal) -> list[list[Decision]]:
    """Return the decisions of all tests of several claims, which together err no more often than a single one.

    Holm 1979, Scand. J. Statist. 6, 65-70: the undecided tests share the allowed error equally. What is decided makes
    room, and the others are tried again. `error_fraction` is the part of the error that may be used.
    """
    claims = list(claims)
    decisions: list[list[Decision | None]] = [[None] * len(claim.tests) for claim in claims]
    open_ = [(number, index) for number, claim in enumerate(claims) for index in range(len(claim.tests))]
    while open_:
        share = error_fraction / len(open_)
        for number, index in open_:
            claim = claims[number]
            confidence = min(float(1 - claim.error * share), _MAX_CONFIDENCE)
            decisions[number][index] = claim.tests[index].decide(confidence)
        undecided = [each for each in open_ if _get_outcome(decisions, each) is Outcome.INCONCLUSIVE]
        if len(undecided) == len(open_):
            break
        open_ = undecided
    return [[each for each in row if each is not None] for row in decisions]


def _get_outcome(decisions: list[list[Decision | None]], place: tuple[int, int]) -> Outcome | None:
    decision = decisions[place[0]][place[1]]
    return None if decision is None else decision.outcome


def _compute_minimum_size(sample: Sample, confidence: float) -> int:
    """Return the smallest number of values that bounds a quantile on both sides; 0 for others."""
    if not isinstance(sample, QuantileSample):
        return 0
    minimum = max(
        stats.compute_sample_size_for_quantile(share, confidence) for share in (sample.share, 1 - sample.share) if share
    )
    return math.ceil(minimum * sample.n / sample.effective_size) if sample.effective_size < minimum else 0


def _compute_needed_size(sample: Sample, limit: float, confidence: float) -> int | None:
    """Return the number of values that would decide about a limit; correlated values of one trace count less."""
    needed: int | None
    if isinstance(sample, RateSample):
        needed = stats.compute_sample_size_for_rate(sample.estimate, limit, confidence)
    elif isinstance(sample, QuantileSample):
        minimum = stats.compute_sample_size_for_quantile(sample.share, confidence)
        needed = minimum if sample.effective_size < minimum else None
    else:
        return None
    return None if needed is None else math.ceil(needed * sample.n / sample.effective_size)
