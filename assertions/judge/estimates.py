"""Claims about what a sample says of the whole: ``with confidence``, and ``not worse than baseline``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from spanproof.assertions.explain import units
from spanproof.assertions.findings.comparators import COMPARATORS
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge import statistics as stats
from spanproof.query_lang.check.constants import Bindings, evaluate, to_decimal
from spanproof.query_lang.check.types import TypeChecker
from spanproof.query_lang.compile.aggregates import compile_values
from spanproof.query_lang.compile.percentiles import read_percentage
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

if TYPE_CHECKING:
    import duckdb

DEFAULT_CONFIDENCE: Final = Decimal("0.95")


@dataclass(frozen=True, slots=True)
class SampleEstimate:
    """What was found of a rate (``hits`` of ``n``) or a quantile, with its bounds.

    ``size`` is as how many independent values the ``n`` count.
    """

    n: int
    effective_size: float
    bounds: stats.ConfidenceBounds
    hits: int | None = None


class Estimator:
    """Judges estimates over the traces in the table `traces`, and in ``baseline``."""

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
        """Judge ``error_rate(…) < 2%`` and the like: the whole interval must lie within, or beyond, the limit."""
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
        return self._make_verdict(outcome, claim.at, sample, type_, needed, "of the whole it")

    def judge_not_worse(self, claim: s.NotWorse) -> Verdict:
        """Judge non-inferiority: the bound of the difference to the baseline against the margin."""
        assert isinstance(claim.value, s.Function)  # noqa: S101 (checked before)
        here = self._estimate(claim.value, self.traces)
        there = self._estimate(claim.value, "baseline")
        if here is None or there is None:
            return _make_nothing_matched(
                claim.value.at, "nothing matched" + ("" if here is None else " in the baseline")
            )
        margin = evaluate(claim.margin, self.bindings)
        limit = float(to_decimal(margin))
        if margin is not None and margin.kind == "fraction" and there.hits is None:
            limit *= there.bounds.estimate
        difference = stats.bound_difference(here.bounds, there.bounds)
        type_ = TypeChecker().infer(claim.value, self.bindings.scope)
        outcome = Outcome.INCONCLUSIVE
        if difference.upper <= limit:
            outcome = Outcome.PASS
        elif difference.lower > limit:
            outcome = Outcome.FAIL
        needed = None
        if outcome is Outcome.INCONCLUSIVE and here.hits is not None and there.hits is not None:
            needed = self._compute_sample_size_for_difference(here, there, limit)
        sample = SampleEstimate(here.n, here.effective_size, difference, None)
        seen = (
            f"{_format_estimate(here, type_)} against {_format_estimate(there, type_)} (n = {there.n}); the difference"
        )
        return self._make_verdict(outcome, claim.at, sample, type_, needed, seen)

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
        share = read_percentage(function) / 100
        top, bottom = share.as_integer_ratio()
        estimate = self._read_value_at_rank(-(-n * top // bottom), sql, parameters)
        clusters = self._count_clusters(sql, "value <= $estimate", {**parameters, "estimate": estimate})
        assert clusters is not None  # noqa: S101 (there are values)
        # bounds of so many independent values, found among the ranks of all
        size = math.floor(clusters.effective_size)
        lower, upper = stats.bound_quantile_ranks(size, share, confidence)
        low = -math.inf if lower is None else self._read_value_at_rank(max(1, lower * n // size), sql, parameters)
        high = math.inf if upper is None else self._read_value_at_rank(-(-upper * n // size), sql, parameters)
        return SampleEstimate(n, size, stats.ConfidenceBounds(float(estimate), float(low), float(high)))

    def _count_clusters(self, sql: str, hit: str, parameters: dict[str, object]) -> stats.ClusterSums | None:
        """Count the values of a bag and the hits among them, trace by trace; None where there are none."""
        found = self._fetch_row(
            "SELECT count(*), sum(n), sum(y), sum(y * y), sum(y * n), sum(n * n) FROM"  # noqa: S608 (what was compiled)
            f" (SELECT count(*) AS n, count(*) FILTER ({hit}) AS y FROM ({sql}) GROUP BY trace_id)",
            parameters,
        )
        return stats.ClusterSums(*(int(each) for each in found)) if found[0] else None

    def _read_value_at_rank(self, rank: int, sql: str, parameters: dict[str, object]) -> Any:
        return self._fetch_row(f"SELECT value FROM ({sql}) ORDER BY value LIMIT 1 OFFSET {rank - 1}", parameters)[0]  # noqa: S608

    def _fetch_row(self, sql: str, parameters: dict[str, object]) -> tuple[Any, ...]:
        row = self.connection.execute(sql, parameters).fetchone()
        assert row is not None  # noqa: S101 (one row by construction)
        return row

    def _compute_sample_size(self, function: s.Function, sample: SampleEstimate, limit: float) -> int | None:
        """Return how many values would decide; values of one trace count for fewer."""
        confidence = float(self.confidence)
        if sample.hits is not None:
            needed = stats.compute_sample_size_for_rate(
                sample.bounds.estimate, limit, confidence, self.compute_rate_bounds
            )
        else:
            least = stats.compute_sample_size_for_quantile(read_percentage(function) / 100, confidence)
            needed = least if sample.effective_size < least else None
        return None if needed is None else math.ceil(needed * sample.n / sample.effective_size)

    def _compute_sample_size_for_difference(
        self, here: SampleEstimate, there: SampleEstimate, limit: float
    ) -> int | None:
        """Return how many values on each side would decide, if both rates stay; None if none would."""
        n = max(here.n, there.n)
        while n < stats.MAX_SAMPLE_SIZE:
            each_side = (
                self.compute_rate_bounds(
                    sample.bounds.estimate * n * sample.effective_size / sample.n,
                    n * sample.effective_size / sample.n,
                    float(self.confidence),
                )
                for sample in (here, there)
            )
            difference = stats.bound_difference(*each_side)
            if difference.upper <= limit or difference.lower > limit:
                return n
            n = int(n * 1.1) + 1
        return None

    def _make_verdict(
        self, outcome: Outcome, at: s.TextRange, sample: SampleEstimate, type_: ValueType, needed: int | None, what: str
    ) -> Verdict:
        seen = _format_estimate(sample, type_)
        low, high = (_format_bound(value, type_) for value in (sample.bounds.lower, sample.bounds.upper))
        said = (
            f"{what} lies between {low} and {high} at {units.format_fraction(float(self.confidence))} confidence each"
        )
        if "difference" not in what:
            said = f"{seen} (n = {sample.n}); {said}"
        if needed is not None:
            said += f"; about {needed} would decide" if needed > sample.n else ""
        id_ = {Outcome.PASS: "pass", Outcome.FAIL: "confident", Outcome.INCONCLUSIVE: "sample-too-small"}[outcome]
        return Verdict(outcome, id_, said, at, seen, sample.n, seen)


def _format_estimate(sample: SampleEstimate, type_: ValueType) -> str:
    counted = f", {sample.hits} of {sample.n}" if sample.hits is not None else ""
    return units.format_value(sample.bounds.estimate, type_) + counted


def _format_bound(value: float, type_: ValueType) -> str:
    if value in (float("inf"), -float("inf")):
        return "anything"
    return units.format_value(round(value) if type_.kind == "duration" else value, type_)


def _make_nothing_matched(at: s.TextRange, reason: str) -> Verdict:
    return Verdict(Outcome.INCONCLUSIVE, "nothing-matched", reason, at, "nothing matched")
