"""Statistical claims about the population of a sample: ``with confidence`` and ``not worse than baseline``."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from spanproof.assertions.explain import units
from spanproof.assertions.findings.comparators import COMPARATORS
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge import statistics as stats
from spanproof.query_lang.check.constants import Bindings, evaluate, to_decimal
from spanproof.query_lang.check.types import TypeChecker
from spanproof.query_lang.compile.aggregates import compile_values
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.vocabulary import ValueType

if TYPE_CHECKING:
    import duckdb

DEFAULT_CONFIDENCE: Final = Decimal("0.95")


class SampleEstimate(Struct, frozen=True):
    """An estimated rate (``hits`` of ``n``) or quantile, with its bounds.

    ``effective_size`` is the number of independent values that the ``n`` values are worth.
    """

    n: int
    effective_size: float
    bounds: stats.ConfidenceBounds
    hits: int | None = None


class Estimator:
    """Judge of estimates over the traces in the table `traces`, and in ``baseline``."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        bindings: Bindings,
        confidence: Decimal,
        traces: str,
        *,
        exact: bool = False,
    ) -> None:
        self.compute_rate_bounds = stats.bound_rate_clopper_pearson if exact else stats.bound_rate_wilson
        self.traces = traces
        self.connection = connection
        self.bindings = bindings
        self.confidence = confidence

    def judge_limit(self, claim: s.ComparisonClaim) -> Verdict:
        """Judge a limit such as ``error_rate(…) < 2%``: the whole interval must lie within, or beyond, the limit."""
        condition = claim.condition
        assert isinstance(condition, s.Compare)  # noqa: S101 (checked before)
        assert isinstance(condition.left, s.Function)  # noqa: S101 (checked before)
        limit = float(to_decimal(evaluate(condition.right, self.bindings)))
        sample = self._estimate(condition.left, self.traces)
        if sample is None:
            return _make_nothing_matched(condition.left.at, "nothing matched")
        holds = COMPARATORS[condition.operator]
        bounds = sample.bounds
        best, worst = (bounds.lower, bounds.upper) if "<" in condition.operator else (bounds.upper, bounds.lower)
        type_ = TypeChecker().infer(condition.left, self.bindings.scope)
        needed = None
        if holds(worst, limit):
            outcome = Outcome.PASS
        elif not holds(best, limit):
            outcome = Outcome.FAIL
        else:
            outcome = Outcome.INCONCLUSIVE
            needed = self._compute_sample_size(condition.left, sample, limit)
        return self._make_verdict(outcome, claim.at, sample, type_, needed, "the population value")

    def judge_not_worse(self, claim: s.NotWorse) -> Verdict:
        """Judge non-inferiority: compare the bound of the difference to the baseline with the margin."""
        assert isinstance(claim.value, s.Function)  # noqa: S101 (checked before)
        current = self._estimate(claim.value, self.traces)
        baseline = self._estimate(claim.value, "baseline")
        if current is None or baseline is None:
            return _make_nothing_matched(
                claim.value.at, "nothing matched" + ("" if current is None else " in the baseline")
            )
        margin = evaluate(claim.margin, self.bindings)
        limit = float(to_decimal(margin))
        if margin is not None and margin.kind == "fraction" and baseline.hits is None:
            limit *= baseline.bounds.estimate
        difference = stats.bound_difference(current.bounds, baseline.bounds)
        type_ = TypeChecker().infer(claim.value, self.bindings.scope)
        outcome = Outcome.INCONCLUSIVE
        if difference.upper <= limit:
            outcome = Outcome.PASS
        elif difference.lower > limit:
            outcome = Outcome.FAIL
        needed = None
        if outcome is Outcome.INCONCLUSIVE and current.hits is not None and baseline.hits is not None:
            needed = self._compute_sample_size_for_difference(current, baseline, limit)
        sample = SampleEstimate(current.n, current.effective_size, difference, None)
        compared = f"{_format_estimate(current, type_)} against {_format_sample(baseline, type_)}"
        return self._make_verdict(outcome, claim.at, sample, type_, needed, f"{compared}; the difference")

    def _estimate(self, function: s.Function, traces: str) -> SampleEstimate | None:
        sql, parameters = compile_values(function, self.bindings, traces)
        confidence = float(self.confidence)
        if function.name == "error_rate":
            clusters = self._count_clusters(sql, "value", parameters)
            if clusters is None:
                return None
            size = clusters.effective_size
            bounds = self.compute_rate_bounds(clusters.hits / clusters.n * size, size, confidence)
            return SampleEstimate(clusters.n, size, bounds, clusters.hits)
        (n,) = self._fetch_row(f"SELECT count(*) FROM ({sql})", parameters)  # noqa: S608 (what was compiled)
        if not n:
            return None
        share = v.read_percentage(function.name, function.arguments) / 100
        top, bottom = share.as_integer_ratio()
        estimate = self._read_value_at_rank(-(-n * top // bottom), sql, parameters)
        clusters = self._count_clusters(sql, "value <= $estimate", {**parameters, "estimate": estimate})
        assert clusters is not None  # noqa: S101 (there are values)
        # ranks for the effective sample size, scaled to the ranks of all values
        size = math.floor(clusters.effective_size)
        lower, upper = stats.bound_quantile_ranks(size, share, confidence)
        low = -math.inf if lower is None else self._read_value_at_rank(max(1, lower * n // size), sql, parameters)
        high = math.inf if upper is None else self._read_value_at_rank(-(-upper * n // size), sql, parameters)
        return SampleEstimate(n, size, stats.ConfidenceBounds(float(estimate), float(low), float(high)))

    def _count_clusters(self, sql: str, hit: str, parameters: dict[str, object]) -> stats.ClusterSums | None:
        """Sum the values and the hits per trace; return None if there are no values."""
        sums = self._fetch_row(
            "SELECT count(*), sum(n), sum(y), sum(y * y), sum(y * n), sum(n * n) FROM"  # noqa: S608 (what was compiled)
            f" (SELECT count(*) AS n, count(*) FILTER ({hit}) AS y FROM ({sql}) GROUP BY trace_id)",
            parameters,
        )
        return stats.ClusterSums(*(int(each) for each in sums)) if sums[0] else None

    def _read_value_at_rank(self, rank: int, sql: str, parameters: dict[str, object]) -> Any:
        return self._fetch_row(f"SELECT value FROM ({sql}) ORDER BY value LIMIT 1 OFFSET {rank - 1}", parameters)[0]  # noqa: S608

    def _fetch_row(self, sql: str, parameters: dict[str, object]) -> tuple[Any, ...]:
        row = self.connection.execute(sql, parameters).fetchone()
        assert row is not None  # noqa: S101 (one row by construction)
        return row

    def _compute_sample_size(self, function: s.Function, sample: SampleEstimate, limit: float) -> int | None:
        """Return the number of values needed to decide; correlated values of one trace count less."""
        confidence = float(self.confidence)
        if sample.hits is not None:
            needed = stats.compute_sample_size_for_rate(
                sample.bounds.estimate, limit, confidence, self.compute_rate_bounds
            )
        else:
            minimum = stats.compute_sample_size_for_quantile(
                v.read_percentage(function.name, function.arguments) / 100, confidence
            )
            needed = minimum if sample.effective_size < minimum else None
        return None if needed is None else math.ceil(needed * sample.n / sample.effective_size)

    def _compute_sample_size_for_difference(
        self, current: SampleEstimate, baseline: SampleEstimate, limit: float
    ) -> int | None:
        """Return the number of values per side needed to decide, if both rates stay; None if no number suffices."""
        n = max(current.n, baseline.n)
        while n < stats.MAX_SAMPLE_SIZE:
            bounds = (
                self.compute_rate_bounds(
                    sample.bounds.estimate * n * sample.effective_size / sample.n,
                    n * sample.effective_size / sample.n,
                    float(self.confidence),
                )
                for sample in (current, baseline)
            )
            difference = stats.bound_difference(*bounds)
            if difference.upper <= limit or difference.lower > limit:
                return n
            n = int(n * 1.1) + 1
        return None

    def _make_verdict(
        self,
        outcome: Outcome,
        at: s.TextRange,
        sample: SampleEstimate,
        type_: ValueType,
        needed: int | None,
        subject: str,
    ) -> Verdict:
        estimate = _format_estimate(sample, type_)
        low, high = (_format_bound(value, type_) for value in (sample.bounds.lower, sample.bounds.upper))
        reason = (
            f"{subject} lies between {low} and {high},"
            f" each bound at {units.format_fraction(float(self.confidence))} confidence"
        )
        if "difference" not in subject:
            reason = f"{_format_sample(sample, type_)}; {reason}"
        if needed is not None:
            reason += f"; about {needed} values would decide" if needed > sample.n else ""
        id_ = {Outcome.PASS: "pass", Outcome.FAIL: "confident", Outcome.INCONCLUSIVE: "sample-too-small"}[outcome]
        return Verdict(outcome, id_, reason, at, estimate, sample.n, estimate)


def _format_estimate(sample: SampleEstimate, type_: ValueType) -> str:
    counted = f", {sample.hits} of {sample.n}" if sample.hits is not None else ""
    return units.format_value(sample.bounds.estimate, type_) + counted


def _format_sample(sample: SampleEstimate, type_: ValueType) -> str:
    """Return an estimate with the size of its sample."""
    estimate = _format_estimate(sample, type_)
    return estimate if sample.hits is not None else f"{estimate} (n = {sample.n})"


def _format_bound(value: float, type_: ValueType) -> str:
    if value in (float("inf"), -float("inf")):
        return "anything"
    return units.format_value(round(value) if type_.kind == "duration" else value, type_)


def _make_nothing_matched(at: s.TextRange, reason: str) -> Verdict:
    return Verdict(Outcome.INCONCLUSIVE, "nothing-matched", reason, at, "nothing matched")
