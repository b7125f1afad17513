"""Claims about what a sample says of the whole: ``with confidence``, and ``not worse than baseline``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from spanproof.assertions import stats, units
from spanproof.assertions.comparing import OPERATIONS
from spanproof.assertions.verdict import Outcome, Verdict
from spanproof.query_lang import syntax as s
from spanproof.query_lang.compare import compile_bag, percentage_of
from spanproof.query_lang.constants import Bindings, evaluate, number
from spanproof.query_lang.types import Types
from spanproof.query_lang.vocabulary import Type

if TYPE_CHECKING:
    import duckdb

CONFIDENCE: Final = Decimal("0.95")


@dataclass(frozen=True, slots=True)
class Sample:
    """What was found of a rate (``hits`` of ``n``) or a quantile, with its bounds.

    ``size`` is as how many independent values the ``n`` count.
    """

    n: int
    size: float
    bounds: stats.Bounds
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
        self.bound_rate = stats.bound_rate_exactly if exact else stats.bound_rate
        self.traces = traces
        self.connection = connection
        self.bindings = bindings
        self.confidence = confidence

    def judge_limit(self, claim: s.Comparison) -> Verdict:
        """Judge ``error_rate(…) < 2%`` and the like: the whole interval must lie within, or beyond, the limit."""
        condition = claim.condition
        assert isinstance(condition, s.Compare)  # noqa: S101 (checked before)
        assert isinstance(condition.left, s.Function)  # noqa: S101 (checked before)
        limit = float(number(evaluate(condition.right, self.bindings)))
        sample = self._sample(condition.left, self.traces)
        if sample is None:
            return _nothing(condition.left.at, "nothing matched")
        holds = OPERATIONS[condition.operator]
        bounds = sample.bounds
        best, worst = (bounds.lower, bounds.upper) if "<" in condition.operator else (bounds.upper, bounds.lower)
        type_ = Types().of(condition.left, self.bindings.scope)
        needed = None
        if holds(worst, limit):
            outcome = Outcome.PASS
        elif not holds(best, limit):
            outcome = Outcome.FAIL
        else:
            outcome = Outcome.INCONCLUSIVE
            needed = self._needed(condition.left, sample, limit)
        return self._verdict(outcome, claim.at, sample, type_, needed, "of the whole it")

    def judge_not_worse(self, claim: s.NotWorse) -> Verdict:
        """Judge non-inferiority: the bound of the difference to the baseline against the margin."""
        assert isinstance(claim.value, s.Function)  # noqa: S101 (checked before)
        here = self._sample(claim.value, self.traces)
        there = self._sample(claim.value, "baseline")
        if here is None or there is None:
            return _nothing(claim.value.at, "nothing matched" + ("" if here is None else " in the baseline"))
        margin = evaluate(claim.margin, self.bindings)
        limit = float(number(margin))
        if margin is not None and margin.kind == "fraction" and there.hits is None:
            limit *= there.bounds.estimate
        difference = stats.subtract(here.bounds, there.bounds)
        type_ = Types().of(claim.value, self.bindings.scope)
        outcome = Outcome.INCONCLUSIVE
        if difference.upper <= limit:
            outcome = Outcome.PASS
        elif difference.lower > limit:
            outcome = Outcome.FAIL
        needed = None
        if outcome is Outcome.INCONCLUSIVE and here.hits is not None and there.hits is not None:
            needed = self._needed_for_difference(here, there, limit)
        sample = Sample(here.n, here.size, difference, None)
        seen = f"{_show(here, type_)} against {_show(there, type_)} (n = {there.n}); the difference"
        return self._verdict(outcome, claim.at, sample, type_, needed, seen)

    def _sample(self, function: s.Function, traces: str) -> Sample | None:
        sql, parameters = compile_bag(function, self.bindings, traces)
        confidence = float(self.confidence)
        if function.name == "error_rate":
            clusters = self._count(sql, "value", parameters)
            if clusters is None:
                return None
            size = clusters.effective_size
            bounds = self.bound_rate(clusters.hits / clusters.n * size, size, confidence)
            return Sample(clusters.n, size, bounds, clusters.hits)
        (n,) = self._one(f"SELECT count(*) FROM ({sql})", parameters)  # noqa: S608 (what was compiled)
        if not n:
            return None
        share = percentage_of(function) / 100
        top, bottom = share.as_integer_ratio()
        estimate = self._value_at(-(-n * top // bottom), sql, parameters)
        clusters = self._count(sql, "value <= $estimate", {**parameters, "estimate": estimate})
        assert clusters is not None  # noqa: S101 (there are values)
        # bounds of so many independent values, found among the ranks of all
        size = math.floor(clusters.effective_size)
        lower, upper = stats.bound_ranks(size, share, confidence)
        low = -math.inf if lower is None else self._value_at(max(1, lower * n // size), sql, parameters)
        high = math.inf if upper is None else self._value_at(-(-upper * n // size), sql, parameters)
        return Sample(n, size, stats.Bounds(float(estimate), float(low), float(high)))

    def _count(self, sql: str, hit: str, parameters: dict[str, object]) -> stats.Clusters | None:
        """Count the values of a bag and the hits among them, trace by trace; None where there are none."""
        found = self._one(
            "SELECT count(*), sum(n), sum(y), sum(y * y), sum(y * n), sum(n * n) FROM"  # noqa: S608 (what was compiled)
            f" (SELECT count(*) AS n, count(*) FILTER ({hit}) AS y FROM ({sql}) GROUP BY trace_id)",
            parameters,
        )
        return stats.Clusters(*(int(each) for each in found)) if found[0] else None

    def _value_at(self, rank: int, sql: str, parameters: dict[str, object]) -> Any:
        return self._one(f"SELECT value FROM ({sql}) ORDER BY value LIMIT 1 OFFSET {rank - 1}", parameters)[0]  # noqa: S608

    def _one(self, sql: str, parameters: dict[str, object]) -> tuple[Any, ...]:
        row = self.connection.execute(sql, parameters).fetchone()
        assert row is not None  # noqa: S101 (one row by construction)
        return row

    def _needed(self, function: s.Function, sample: Sample, limit: float) -> int | None:
        """Return how many values would decide; values of one trace count for fewer."""
        confidence = float(self.confidence)
        if sample.hits is not None:
            needed = stats.needed_for_rate(sample.bounds.estimate, limit, confidence, self.bound_rate)
        else:
            least = stats.needed_for_quantile(percentage_of(function) / 100, confidence)
            needed = least if sample.size < least else None
        return None if needed is None else math.ceil(needed * sample.n / sample.size)

    def _needed_for_difference(self, here: Sample, there: Sample, limit: float) -> int | None:
        """Return how many values on each side would decide, if both rates stay; None if none would."""
        n = max(here.n, there.n)
        while n < stats.MOST_NEEDED:
            each_side = (
                self.bound_rate(
                    sample.bounds.estimate * n * sample.size / sample.n,
                    n * sample.size / sample.n,
                    float(self.confidence),
                )
                for sample in (here, there)
            )
            difference = stats.subtract(*each_side)
            if difference.upper <= limit or difference.lower > limit:
                return n
            n = int(n * 1.1) + 1
        return None

    def _verdict(
        self, outcome: Outcome, at: s.Source, sample: Sample, type_: Type, needed: int | None, what: str
    ) -> Verdict:
        seen = _show(sample, type_)
        low, high = (_bound(value, type_) for value in (sample.bounds.lower, sample.bounds.upper))
        said = f"{what} lies between {low} and {high} at {units.show_fraction(float(self.confidence))} confidence each"
        if "difference" not in what:
            said = f"{seen} (n = {sample.n}); {said}"
        if needed is not None:
            said += f"; about {needed} would decide" if needed > sample.n else ""
        id_ = {Outcome.PASS: "pass", Outcome.FAIL: "confident", Outcome.INCONCLUSIVE: "sample-too-small"}[outcome]
        return Verdict(outcome, id_, said, at, seen, sample.n, seen)


def _show(sample: Sample, type_: Type) -> str:
    counted = f", {sample.hits} of {sample.n}" if sample.hits is not None else ""
    return units.show(sample.bounds.estimate, type_) + counted


def _bound(value: float, type_: Type) -> str:
    if value in (float("inf"), -float("inf")):
        return "anything"
    return units.show(round(value) if type_.kind == "duration" else value, type_)


def _nothing(at: s.Source, reason: str) -> Verdict:
    return Verdict(Outcome.INCONCLUSIVE, "nothing-matched", reason, at, "nothing matched")
