"""Judges one claim: runs its plan and draws the verdict that the evidence allows, no other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import duckdb

from spanproof.assertions.estimates import CONFIDENCE, Estimator
from spanproof.assertions.explain import Explainer
from spanproof.assertions.live_paths import find_live_path
from spanproof.assertions.selected import Selected, Window
from spanproof.assertions.shares import judge_traces
from spanproof.assertions.tally import DROPPED, UNSAMPLED, Tally, tally_findings
from spanproof.assertions.verdict import Outcome, Verdict
from spanproof.collector.completeness import mark_incomplete
from spanproof.collector.retention import find_forgotten
from spanproof.query_lang import syntax as s
from spanproof.query_lang.compile import compile_claim
from spanproof.query_lang.constants import Bindings, NoValue, evaluate, number
from spanproof.query_lang.plan import Plan
from spanproof.query_lang.types import mentions_baseline
from spanproof.query_lang.windows import compile_window, find_bounds, show_instant

if TYPE_CHECKING:
    from spanproof.collector.live import LiveTraces

MOST_INCOMPLETE: Final = 0.01
COMPLETE: Final = """
CREATE OR REPLACE TEMP TABLE {table} AS
SELECT trace_id, true AS settled, true AS trusting FROM judged WHERE trace_id NOT IN (FROM incomplete)
"""


class Judge:
    """Judges claims about a set of traces in a store; each has its own connection and table ``selected``.

    What is shown of `live` traces as they arrive is judged by their connection, and paths there without a query.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, error_share: Decimal = Decimal(1), live: LiveTraces | None = None
    ) -> None:
        self.connection = connection
        self._live = live
        self.error_share = error_share  # what estimates may use up of the error that their confidence allows
        self.selected: Selected | Window = Selected({})
        self._baseline: Window | None = None
        self._loss: tuple[int, int] | None = None  # spans selected that dropped something, or were not sampled

    @property
    def all_settled(self) -> bool:
        """Nothing more is to come of the traces selected."""
        return self.selected.incomplete == 0

    def in_memory(self, live: LiveTraces) -> Judge:
        """Return who judges these traces as they arrive, and allows as many errors."""
        return Judge(live.connection, self.error_share, live)

    @property
    def enough_complete(self) -> bool:
        """So few traces of a window are incomplete that numbers may be made of the others."""
        window = self.selected
        return isinstance(window, Window) and window.incomplete <= window.traces * MOST_INCOMPLETE

    def select_window(self, given: s.Given, bindings: Bindings) -> Window:
        """Set the traces of a ``given``, or of a ``compare baseline``, of which only complete ones count."""
        now_ns = time.time_ns()
        sql, parameters = compile_window(given, bindings, now_ns)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {sql}", parameters)
        mark_incomplete(self.connection)
        row = self.connection.execute(
            "SELECT count(*), count(*) FILTER (trace_id IN (FROM incomplete)) FROM judged"
        ).fetchone()
        window = Window(find_bounds(given.window, bindings, now_ns)[0], *(row or (0, 0)))
        if given.baseline:
            self._baseline = window
            self.connection.execute(COMPLETE.format(table="baseline"))
            return window
        self.connection.execute(COMPLETE.format(table="complete"))
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE selected AS SELECT trace_id, trace_id NOT IN (FROM incomplete) AS settled,"
            " true AS trusting FROM judged"
        )
        self.selected = window
        self._loss = None
        return window

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
        self._loss = None
        rows = list(selected.settled.items())
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE selected AS SELECT unnest($traces)::UUID AS trace_id,"
            " unnest($settled)::BOOLEAN AS settled, settled OR NOT $live AS trusting",
            {"traces": [trace for trace, _ in rows], "settled": [done for _, done in rows], "live": selected.live},
        )

    def judge(self, expectation: s.Expectation, text: str, bindings: Bindings) -> Verdict:
        """Return the verdict on a claim, as far as the traces selected allow one. Raises duckdb.InterruptException."""
        explainer = Explainer(self.connection, expectation, text, bindings, self.selected.missing)
        try:
            if expectation.confidence is not None or isinstance(expectation.claim, s.NotWorse):
                verdict = self._estimate(expectation, bindings, explainer)
                return self._tell_forgotten(expectation, verdict, decided=True)  # what is left is a sample, too
            taken = self._find_path(expectation, bindings, explainer)
            if taken is not None:
                return taken
            numbers_from = "complete" if self.enough_complete else "selected"
            plan = compile_claim(expectation, bindings, numbers_from=numbers_from)
            if expectation.share is not None:
                verdict = self._conclude_share(plan, expectation.share, bindings, explainer)
                return self._tell_forgotten(expectation, verdict, decided=False)
            groups = tally_findings(self.connection, plan, by=expectation.by is not None, all_settled=self.all_settled)
            if expectation.by is None:
                tally = groups[None]
                verdict = self._check_loss(plan, self._conclude(plan, tally, explainer))
                return self._tell_forgotten(expectation, verdict, decided=_lasts(plan, tally))
            brief = explainer.without_witnesses()  # but for the one group that is shown
            judged = {
                group: self._check_loss(plan, self._conclude(plan, tally, brief)) for group, tally in groups.items()
            }
            group, verdict = explainer.gravest(judged, expectation.by)
            verdict = replace(verdict, witnesses=self._conclude(plan, groups[group], explainer).witnesses)
            return self._tell_forgotten(expectation, verdict, decided=False)
        except duckdb.InterruptException:  # no verdict: nobody wants any more of them
            raise
        except (NoValue, duckdb.Error) as error:
            return explainer.error(str(error))

    def _find_path(self, expectation: s.Expectation, bindings: Bindings, explainer: Explainer) -> Verdict | None:
        """Look for a path in a trace as it arrives, if there is but one.

        None says nothing: a path that is not there may still come, or be found only by its plan.
        """
        claim, live = expectation.claim, self._live
        traces = self.selected.settled if isinstance(self.selected, Selected) else {}
        if live is None or len(traces) != 1 or expectation.share is not None or expectation.by is not None:
            return None
        if not isinstance(claim, s.Path) or claim.mode != "some":
            return None
        witnesses = find_live_path(live, claim, bindings, next(iter(traces)))
        return explainer.path_taken(witnesses) if witnesses else None

    def _estimate(self, expectation: s.Expectation, bindings: Bindings, explainer: Explainer) -> Verdict:
        """Judge what a sample says of the whole; only complete traces are one."""
        if not self.all_settled and not self.enough_complete:
            return explainer.waiting()
        confidence = (
            CONFIDENCE if expectation.confidence is None else number(evaluate(expectation.confidence, bindings))
        )
        confidence = 1 - (1 - confidence) * self.error_share
        traces = "complete" if self.enough_complete else "selected"
        exact = self.error_share < 1  # of small shares Wilson's bounds use up more than they say
        estimator = Estimator(self.connection, bindings, confidence, traces, exact=exact)
        claim = expectation.claim
        if isinstance(claim, s.NotWorse):
            return estimator.judge_not_worse(claim)
        assert isinstance(claim, s.Comparison)  # noqa: S101 (checked before)
        return estimator.judge_limit(claim)

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
        if not self.all_settled and not self.enough_complete:
            sample = tally.sample(ok=bool(tally.holds))
            sign = sample.note[2] if sample and sample.note else None
            if not plan.is_decided(sign, holds=bool(tally.holds)):
                return explainer.open(plan, tally)
        if tally.empty or not tally.n:
            return explainer.nothing(plan)
        return explainer.passed(plan, tally) if tally.holds else explainer.fail(plan, tally)

    def _conclude_share(self, plan: Plan, share: s.Share, bindings: Bindings, explainer: Explainer) -> Verdict:
        """``in OP P of traces``: traces that are still open could go either way."""
        traces = judge_traces(self.connection, plan)
        possible = traces.possible_shares(share.operator, number(evaluate(share.value, bindings)))
        if possible == {None}:
            return explainer.nothing(plan)
        if not traces.n:
            return explainer.open(plan, Tally())
        return explainer.share(traces, share, passed=possible.pop() if len(possible) == 1 else None)

    def _check_loss(self, plan: Plan, verdict: Verdict) -> Verdict:
        """A bound or absence is not proved by traces of which something was dropped or not sampled."""
        if verdict.outcome is not Outcome.PASS or not plan.rests_on_absence:
            return verdict
        if self._loss is None:
            ((dropped, unsampled),) = self.connection.execute(
                f"SELECT count(*) FILTER ({DROPPED}), count(*) FILTER ({UNSAMPLED})"  # noqa: S608 (fixed conditions)
                f" FROM spans s SEMI JOIN selected USING (trace_id) WHERE {DROPPED} OR {UNSAMPLED}"
            ).fetchall()
            self._loss = (dropped, unsampled)
        dropped, unsampled = self._loss
        if not dropped and not unsampled:
            return verdict
        what = [f"{dropped} spans dropped attributes, events or links"] if dropped else []
        what += [f"{unsampled} spans were not sampled"] if unsampled else []
        return replace(
            verdict, outcome=Outcome.INCONCLUSIVE, id="lossy", reason=f"{verdict.reason}, but {', '.join(what)}"
        )

    def _tell_forgotten(self, expectation: s.Expectation, verdict: Verdict, *, decided: bool) -> Verdict:
        """A window of which traces were forgotten proves nothing, unless it is `decided` whatever these were."""
        claim = expectation.claim
        compares = isinstance(claim, s.NotWorse) or mentions_baseline(claim)
        windows = (self.selected, self._baseline if compares else None)
        begin_ns = min((each.begin_ns for each in windows if isinstance(each, Window)), default=None)
        if begin_ns is None or verdict.outcome is Outcome.ERROR:
            return verdict
        # read only now: while the claim was judged, more may have been forgotten
        last_ns = find_forgotten(self.connection, begin_ns)
        if last_ns is None:
            return verdict
        reason = f"{verdict.reason}, but traces of its window up to {show_instant(last_ns)} were forgotten"
        if verdict.outcome is not Outcome.PASS or decided:
            return replace(verdict, reason=reason)
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, id="forgotten", reason=reason)


def _lasts(plan: Plan, tally: Tally) -> bool:
    """Tell whether a number that holds would hold with more traces, too."""
    sample = tally.sample(ok=True)
    if plan.family != "number" or sample is None or sample.trace_id is not None:
        return False
    return replace(plan, stable=True).is_decided(sample.note[2] if sample.note else None, holds=True)
