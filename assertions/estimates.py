"""Claims about what a sample says of the whole: ``with confidence``, and ``not worse than baseline``."""

from __future__ import annotations

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
    """What was found of a rate (``hits`` of ``n``) or a quantile, with its bounds."""

    n: int
    bounds: stats.Bounds
    hits: int | None = None


class Estimator:
    """Judges estimates over the traces in the table `traces`, and in ``baseline``."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, bindings: Bindings, confidence: Decimal, traces: str
    ) -> None:
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
            needed = _needed_for_difference(here, there, limit, float(self.confidence))
        sample = Sample(here.n, difference, None)
        seen = f"{_show(here, type_)} against {_show(there, type_)} (n = {there.n}); the difference"
        return self._verdict(outcome, claim.at, sample, type_, needed, seen)

    def _sample(self, function: s.Function, traces: str) -> Sample | None:
        sql, parameters = compile_bag(function, self.bindings, traces)
        confidence = float(self.confidence)
        if function.name == "error_rate":
            n, hits = self._one(f"SELECT count(*), count(*) FILTER (value) FROM ({sql})", parameters)  # noqa: S608
            return Sample(n, stats.bound_rate(hits, n, confidence), hits) if n else None
        (n,) = self._one(f"SELECT count(*) FROM ({sql})", parameters)  # noqa: S608 (what was compiled)
        if not n:
            return None
        share = percentage_of(function) / 100
        lower, upper = stats.bound_ranks(n, share, confidence)
        top, bottom = share.as_integer_ratio()
        values = [
            float(self._one(f"SELECT value FROM ({sql}) ORDER BY value LIMIT 1 OFFSET {rank - 1}", parameters)[0])  # noqa: S608
            if rank is not None
            else None
            for rank in (-(-n * top // bottom), lower, upper)
        ]
        estimate, low, high = values
        assert estimate is not None  # noqa: S101 (its rank always exists)
        return Sample(
            n, stats.Bounds(estimate, -float("inf") if low is None else low, float("inf") if high is None else high)
        )

    def _one(self, sql: str, parameters: dict[str, object]) -> tuple[Any, ...]:
        row = self.connection.execute(sql, parameters).fetchone()
        assert row is not None  # noqa: S101 (one row by construction)
        return row

    def _needed(self, function: s.Function, sample: Sample, limit: float) -> int | None:
        if sample.hits is not None:
            return stats.needed_for_rate(sample.bounds.estimate, limit, float(self.confidence))
        least = stats.needed_for_quantile(percentage_of(function) / 100, float(self.confidence))
        return least if sample.n < least else None

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


def _needed_for_difference(here: Sample, there: Sample, limit: float, confidence: float) -> int | None:
    """Return how many values on each side would decide, if both rates stay; None if none would."""
    n = max(here.n, there.n)
    while n < stats.MOST_NEEDED:
        difference = stats.subtract(
            stats.bound_rate(round(here.bounds.estimate * n), n, confidence),
            stats.bound_rate(round(there.bounds.estimate * n), n, confidence),
        )
        if difference.upper <= limit or difference.lower > limit:
            return n
        n = int(n * 1.1) + 1
    return None


def _show(sample: Sample, type_: Type) -> str:
    counted = f", {sample.hits} of {sample.n}" if sample.hits is not None else ""
    return units.show(sample.bounds.estimate, type_) + counted


def _bound(value: float, type_: Type) -> str:
    if value in (float("inf"), -float("inf")):
        return "anything"
    return units.show(round(value) if type_.kind == "duration" else value, type_)


def _nothing(at: s.Source, reason: str) -> Verdict:
    return Verdict(Outcome.INCONCLUSIVE, "nothing-matched", reason, at, "nothing matched")
