"""Judges one claim: runs its plan and draws the verdict that the evidence allows, no other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

import duckdb

from spanproof.assertions.comparing import OPERATIONS
from spanproof.assertions.estimates import CONFIDENCE, Estimator
from spanproof.assertions.explain import Explainer, Finding
from spanproof.assertions.verdict import Outcome, Verdict
from spanproof.collector.completeness import mark_incomplete
from spanproof.query_lang import syntax as s
from spanproof.query_lang.compile import compile_claim
from spanproof.query_lang.constants import Bindings, NoValue, evaluate, number
from spanproof.query_lang.plan import Plan
from spanproof.query_lang.windows import compile_window

TALLY: Final = """
SELECT {group} AS grp, f.ok, coalesce(sel.settled, $settled) AS settled, {stable} AS stable, count(*) AS n,
    arg_min({{'trace_id': f.trace_id, 'value': f.value, 'witness': f.witness, 'note': f.note}}, coalesce(f.rank, 0), 3)
FROM ({findings}) f LEFT JOIN selected sel ON sel.trace_id = f.trace_id
GROUP BY ALL
"""
MOST_INCOMPLETE: Final = 0.01
COMPLETE: Final = """
CREATE OR REPLACE TEMP TABLE {table} AS
SELECT trace_id, true AS settled, true AS trusting FROM judged WHERE trace_id NOT IN (FROM incomplete)
"""
UNTOLD: Final = "bool_or(f.ok IS NULL) AND bool_and(f.ok) IS DISTINCT FROM false"
PER_TRACE: Final = """
SELECT sel.trace_id, {ok} AS ok, arg_min(f.value, f.rank) FILTER (NOT f.ok) AS value,
    arg_min(f.witness, f.rank) FILTER (NOT f.ok) AS witness, coalesce(min(f.rank), 0) AS rank,
    arg_min(f.note, f.rank) FILTER (NOT f.ok) AS note
FROM selected sel LEFT JOIN ({findings}) f ON f.trace_id = sel.trace_id
GROUP BY sel.trace_id
"""


@dataclass(frozen=True, slots=True)
class Selected:
    """The traces to judge.

    ``settled`` says for each whether anything is still to come; ``live``, that there is still time for it.
    ``missing`` says in words what has not come.
    """

    settled: Mapping[str, bool]
    live: bool = False
    missing: tuple[str, ...] = ()

    @property
    def incomplete(self) -> int:
        """How many of the traces something is still to come of."""
        return sum(not done for done in self.settled.values())


@dataclass(frozen=True, slots=True)
class Window:
    """The traces of a ``given``: how many, and how many of them are incomplete."""

    traces: int
    incomplete: int
    live: Final[bool] = False

    @property
    def missing(self) -> tuple[str, ...]:
        """What has not come, in words."""
        return (f"{self.incomplete} of {self.traces} traces are not complete",) if self.incomplete else ()


@dataclass(frozen=True, slots=True)
class Tally:
    """How many findings hold, fail or had nothing to judge; ``sure`` counts those that nothing can change.

    ``undecided`` are traces that may still come to hold or fail, or of which it cannot be told.
    """

    holds: int = 0
    fails: int = 0
    sure_holds: int = 0
    sure_fails: int = 0
    empty: int = 0
    undecided: int = 0
    samples: tuple[Finding, ...] = field(default=())

    @property
    def n(self) -> int:
        """How many findings there were something to judge in."""
        return self.holds + self.fails + self.undecided


class Judge:
    """Judges claims about a set of traces in a store; each has its own connection and table ``selected``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.selected: Selected | Window = Selected({})

    @property
    def all_settled(self) -> bool:
        """Nothing more is to come of the traces selected."""
        return self.selected.incomplete == 0

    @property
    def enough_complete(self) -> bool:
        """So few traces of a window are incomplete that numbers may be made of the others."""
        window = self.selected
        return isinstance(window, Window) and window.incomplete <= window.traces * MOST_INCOMPLETE

    def select_window(self, given: s.Given, bindings: Bindings) -> None:
        """Set the traces of a ``given``, or of a ``compare baseline``, of which only complete ones count."""
        sql, parameters = compile_window(given, bindings, time.time_ns())
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {sql}", parameters)
        mark_incomplete(self.connection)
        if given.baseline:
            self.connection.execute(COMPLETE.format(table="baseline"))
            return
        self.connection.execute(COMPLETE.format(table="complete"))
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE selected AS SELECT trace_id, trace_id NOT IN (FROM incomplete) AS settled,"
            " true AS trusting FROM judged"
        )
        row = self.connection.execute("SELECT count(*), count(*) FILTER (NOT settled) FROM selected").fetchone()
        self.selected = Window(*(row or (0, 0)))

    def select_baseline(self, traces: Sequence[str]) -> None:
        """Set the traces that others are compared with."""
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE baseline AS"
            " SELECT unnest($traces::UUID[]) AS trace_id, true AS settled, true AS trusting",
            {"traces": list(traces)},
        )

    def select(self, selected: Selected) -> None:
        """Set the traces that the following claims are about."""
        self.selected = selected
        rows = list(selected.settled.items())
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE selected AS SELECT unnest($traces)::UUID AS trace_id,"
            " unnest($settled)::BOOLEAN AS settled, settled OR NOT $live AS trusting",
            {"traces": [trace for trace, _ in rows], "settled": [done for _, done in rows], "live": selected.live},
        )

    def judge(self, expectation: s.Expectation, text: str, bindings: Bindings) -> Verdict:
        """Return the verdict on a claim, as far as the traces selected allow one."""
        explainer = Explainer(self.connection, expectation, text, bindings, self.selected.missing)
        try:
            if expectation.confidence is not None or isinstance(expectation.claim, s.NotWorse):
                return self._estimate(expectation, bindings, explainer)
            numbers_from = "complete" if self.enough_complete else "selected"
            plan = compile_claim(expectation, bindings, numbers_from=numbers_from)
            if expectation.share is not None:
                wanted = number(evaluate(expectation.share.value, bindings))
                return self._conclude_share(plan, expectation.share, wanted, explainer)
            groups = self._tally(plan, plan.sql, by=expectation.by is not None)
            judged = {
                group: self._check_loss(plan, self._conclude(plan, tally, explainer)) for group, tally in groups.items()
            }
            return explainer.gravest(judged, expectation.by)
        except (NoValue, duckdb.Error) as error:
            return explainer.error(str(error))

    def _estimate(self, expectation: s.Expectation, bindings: Bindings, explainer: Explainer) -> Verdict:
        """Judge what a sample says of the whole; only complete traces are one."""
        if not self.all_settled and not self.enough_complete:
            return explainer.waiting()
        confidence = (
            CONFIDENCE if expectation.confidence is None else number(evaluate(expectation.confidence, bindings))
        )
        estimator = Estimator(self.connection, bindings, confidence, "complete" if self.enough_complete else "selected")
        claim = expectation.claim
        if isinstance(claim, s.NotWorse):
            return estimator.judge_not_worse(claim)
        assert isinstance(claim, s.Comparison)  # noqa: S101 (checked before)
        return estimator.judge_limit(claim)

    def _tally(
        self, plan: Plan, findings: str, *, by: bool = False, per_trace: bool = False
    ) -> dict[str | None, Tally]:
        """Count the findings, for each group by itself; without groups, or without findings, there is one.

        With `per_trace` each finding sums up a trace: what holds for all of it so far is sure once it is settled.
        """
        stable = plan.stable_where if plan.stable_where and not per_trace else str(plan.stable).lower()
        sql = TALLY.format(findings=findings, group="f.grp" if by else "NULL", stable=stable)
        parameters = {**plan.parameters, "settled": self.all_settled}
        groups: dict[str | None, Tally] = {}
        for group, ok, settled, lasts, n, samples in self.connection.execute(sql, parameters).fetchall():
            tally = groups.get(group, Tally())
            settled = settled and (self.all_settled or not plan.rests_on_all)
            if ok is None:
                open_ = n if per_trace and not settled else 0
                tally = replace(tally, empty=tally.empty + n - open_, undecided=tally.undecided + open_)
            elif ok:
                sure = settled or (lasts and plan.family != "number" and not (per_trace and plan.family != "some"))
                tally = replace(tally, holds=tally.holds + n, sure_holds=tally.sure_holds + n * sure)
            else:
                sure = settled or (lasts and plan.family in ("all", "none"))
                tally = replace(tally, fails=tally.fails + n, sure_fails=tally.sure_fails + n * sure)
            found = tuple(Finding(ok=ok, **sample) for sample in samples or [])
            groups[group] = replace(tally, samples=tally.samples + found)
        return dict(sorted(groups.items(), key=lambda item: item[0] or "")) or {None: Tally()}

    def _conclude(self, plan: Plan, tally: Tally, explainer: Explainer) -> Verdict:
        settled = self.all_settled
        match plan.family:
            case "all":
                if tally.sure_fails:
                    return explainer.fail(plan, tally)
                if tally.fails or not settled:
                    return explainer.open(plan, tally)
                if tally.empty:
                    return explainer.untold(plan, tally)
                return explainer.passed(plan, tally) if tally.n else explainer.nothing(plan)
            case "none":
                if tally.sure_fails:
                    return explainer.fail(plan, tally)
                return explainer.passed(plan, tally) if settled else explainer.open(plan, tally)
            case "some":
                if tally.sure_fails:
                    return explainer.fail(plan, tally)
                if tally.n and tally.sure_holds == tally.n:
                    return explainer.passed(plan, tally)
                return explainer.open(plan, tally) if tally.n else explainer.nothing(plan)
            case "number":
                return self._conclude_number(plan, tally, explainer)

    def _conclude_number(self, plan: Plan, tally: Tally, explainer: Explainer) -> Verdict:
        """While spans are still to come, a number decides only where it can move no further back."""
        settled = self.all_settled or self.enough_complete or plan.trend == "fixed"
        if not settled and not (
            plan.stable and tally.n and _is_decided(plan, tally, explainer.difference(plan, tally))
        ):
            return explainer.open(plan, tally)
        if tally.empty or not tally.n:
            return explainer.nothing(plan)
        return explainer.passed(plan, tally) if tally.holds else explainer.fail(plan, tally)

    def _conclude_share(self, plan: Plan, share: s.Share, wanted: Decimal, explainer: Explainer) -> Verdict:
        """``in OP P of traces``: traces that are still open could go either way."""
        if plan.family == "number":
            findings = plan.sql
        else:
            nothing = "true" if plan.family == "none" else "NULL"
            ok = f"CASE WHEN count(f.trace_id) = 0 THEN {nothing} WHEN {UNTOLD} THEN NULL ELSE bool_and(f.ok) END"
            findings = PER_TRACE.format(ok=ok, findings=plan.sql)
        tally = self._tally(plan, findings, per_trace=True)[None]
        comparison = isinstance(explainer.claim, s.Comparison)  # with nothing to compare with there is nothing to judge
        untold = self._count_untold(plan) if plan.untold and not comparison else 0
        possible = _possible_shares(tally, untold, share.operator, wanted)
        tally = replace(tally, empty=tally.empty - untold, undecided=tally.undecided + untold)
        if possible == {None}:
            return explainer.nothing(plan)
        if not tally.holds + tally.fails + untold:
            return explainer.open(plan, tally)
        return explainer.share(plan, tally, share, passed=possible.pop() if len(possible) == 1 else None)

    def _count_untold(self, plan: Plan) -> int:
        """Count the settled traces of which it cannot be told whether the claim holds."""
        row = self.connection.execute(
            f"SELECT count(*) FROM (SELECT f.trace_id FROM ({plan.sql}) f SEMI JOIN"  # noqa: S608 (what was compiled)
            " (FROM selected WHERE settled) USING (trace_id) GROUP BY f.trace_id"
            f" HAVING {UNTOLD})",
            plan.parameters,
        ).fetchone()
        return int(row[0]) if row else 0

    def _check_loss(self, plan: Plan, verdict: Verdict) -> Verdict:
        """A bound or absence is not proved by traces of which something was dropped or not sampled."""
        if verdict.outcome is not Outcome.PASS or plan.family == "some" or plan.trend == "fixed":
            return verdict
        row = self.connection.execute(
            "SELECT count(*) FILTER (dropped_attributes_count + dropped_events_count + dropped_links_count > 0),"
            " count(*) FILTER (flags & 255 > 0 AND flags & 1 = 0) FROM spans SEMI JOIN selected USING (trace_id)"
        ).fetchone()
        dropped, unsampled = row or (0, 0)
        if not dropped and not unsampled:
            return verdict
        what = [f"{dropped} spans dropped attributes, events or links"] if dropped else []
        what += [f"{unsampled} spans were not sampled"] if unsampled else []
        return replace(
            verdict, outcome=Outcome.INCONCLUSIVE, id="lossy", reason=f"{verdict.reason}, but {', '.join(what)}"
        )


def _possible_shares(tally: Tally, untold: int, comparator: str, wanted: Decimal) -> set[bool | None]:
    """Return whether the share of traces that hold can come to satisfy the comparison, to miss it, or to be of nothing.

    A trace seen to hold or fail, but not for sure, can become either, as can one of which it cannot be told; one
    with nothing to judge yet can also stay so.
    """
    holds = OPERATIONS[comparator]
    open_ = tally.holds + tally.fails - tally.sure_holds - tally.sure_fails + untold
    possible: set[bool | None] = set()
    for coming in range(tally.undecided + 1):
        free = open_ + coming
        total = tally.sure_holds + tally.sure_fails + free
        if not total:
            possible.add(None)
            continue
        passing = [tally.sure_holds, tally.sure_holds + free]
        exact = wanted * total
        if exact == int(exact) and passing[0] <= exact <= passing[1]:
            passing.append(int(exact))
        possible |= {holds(Decimal(count), exact) for count in passing}
    return possible


def _is_decided(plan: Plan, tally: Tally, difference: Decimal | None) -> bool:
    """Tell whether `left - right`, moving on as its trend says, keeps the comparison as it is."""
    if difference is None or plan.trend not in ("up", "down"):
        return False
    up = plan.trend == "up"
    holds = bool(tally.holds)
    match plan.operator:
        case ">" | ">=":
            return holds == up
        case "<" | "<=":
            return holds != up
        case "==" | "!=" | "in" | "not in":
            return difference > 0 if up else difference < 0
    return False


def select_all(traces: Sequence[str], *, settled: bool) -> Selected:
    """Return a selection of traces that are all settled, or all not, with no time left."""
    return Selected(dict.fromkeys(traces, settled))
