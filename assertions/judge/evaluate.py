"""Judges one claim: runs its plan and draws the verdict that the evidence allows, no other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import duckdb

from spanproof.assertions.explain.explanation import Explainer
from spanproof.assertions.findings.finding_counts import (
    HAS_DROPPED_SQL,
    IS_UNSAMPLED_SQL,
    FindingCounts,
    count_findings,
)
from spanproof.assertions.findings.judged_traces import SelectedTraces, TraceWindow
from spanproof.assertions.findings.live_paths import find_live_path
from spanproof.assertions.findings.trace_share import judge_traces
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge.estimates import DEFAULT_CONFIDENCE, Estimator
from spanproof.collector.traces.completeness import mark_incomplete_traces
from spanproof.collector.traces.retention import find_last_expired_start_ns
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, to_decimal
from spanproof.query_lang.check.types import mentions_baseline
from spanproof.query_lang.compile.compiler import compile_claim
from spanproof.query_lang.compile.plan import Plan
from spanproof.query_lang.compile.windows import compile_window, compute_bounds
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.instants import format_instant

if TYPE_CHECKING:
    from spanproof.collector.traces.live_traces import LiveTraces

MAX_INCOMPLETE_FRACTION: Final = 0.01
COMPLETE_TRACES_SQL: Final = """
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
        self.error_fraction = error_share  # what estimates may use up of the error that their confidence allows
        self.selected: SelectedTraces | TraceWindow = SelectedTraces({})
        self._baseline: TraceWindow | None = None
        self._lossy_span_counts: tuple[int, int] | None = (
            None  # spans selected that dropped something, or were not sampled
        )

    @property
    def is_settled(self) -> bool:
        """Nothing more is to come of the traces selected."""
        return self.selected.incomplete == 0

    def make_live_judge(self, live: LiveTraces) -> Judge:
        """Return who judges these traces as they arrive, and allows as many errors."""
        return Judge(live.connection, self.error_fraction, live)

    @property
    def is_nearly_complete(self) -> bool:
        """So few traces of a window are incomplete that numbers may be made of the others."""
        window = self.selected
        return isinstance(window, TraceWindow) and window.incomplete <= window.traces * MAX_INCOMPLETE_FRACTION

    def select_window(self, given: s.Given, bindings: Bindings) -> TraceWindow:
        """Set the traces of a ``given``, or of a ``compare baseline``, of which only complete ones count."""
        now_ns = time.time_ns()
        sql, parameters = compile_window(given, bindings, now_ns)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {sql}", parameters)
        mark_incomplete_traces(self.connection)
        row = self.connection.execute(
            "SELECT count(*), count(*) FILTER (trace_id IN (FROM incomplete)) FROM judged"
        ).fetchone()
        window = TraceWindow(compute_bounds(given.window, bindings, now_ns)[0], *(row or (0, 0)))
        if given.baseline:
            self._baseline = window
            self.connection.execute(COMPLETE_TRACES_SQL.format(table="baseline"))
            return window
        self.connection.execute(COMPLETE_TRACES_SQL.format(table="complete"))
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE selected AS SELECT trace_id, trace_id NOT IN (FROM incomplete) AS settled,"
            " true AS trusting FROM judged"
        )
        self.selected = window
        self._lossy_span_counts = None
        return window

    def select_baseline(self, traces: Sequence[str]) -> None:
        """Set the traces that others are compared with."""
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE baseline AS"
            " SELECT unnest($traces::UUID[]) AS trace_id, true AS settled, true AS trusting",
            {"traces": list(traces)},
        )

    def select_traces(self, selected: SelectedTraces) -> None:
        """Set the traces that the following claims are about."""
        self.selected = selected
        self._lossy_span_counts = None
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
                verdict = self._judge_estimate(expectation, bindings, explainer)
                return self._check_expiry(expectation, verdict, decided=True)  # what is left is a sample, too
            taken = self._judge_live_path(expectation, bindings, explainer)
            if taken is not None:
                return taken
            numbers_from = "complete" if self.is_nearly_complete else "selected"
            plan = compile_claim(expectation, bindings, numbers_from=numbers_from)
            if expectation.share is not None:
                verdict = self._conclude_share(plan, expectation.share, bindings, explainer)
                return self._check_expiry(expectation, verdict, decided=False)
            groups = count_findings(self.connection, plan, by=expectation.by is not None, all_settled=self.is_settled)
            if expectation.by is None:
                tally = groups[None]
                verdict = self._check_loss(plan, self._conclude(plan, tally, explainer))
                return self._check_expiry(expectation, verdict, decided=_is_stable(plan, tally))
            brief = explainer.without_witnesses()  # but for the one group that is shown
            judged = {
                group: self._check_loss(plan, self._conclude(plan, tally, brief)) for group, tally in groups.items()
            }
            group, verdict = explainer.choose_worst_group(judged, expectation.by)
            verdict = replace(verdict, witnesses=self._conclude(plan, groups[group], explainer).witnesses)
            return self._check_expiry(expectation, verdict, decided=False)
        except duckdb.InterruptException:  # no verdict: nobody wants any more of them
            raise
        except (MissingValue, duckdb.Error) as error:
            return explainer.make_error(str(error))

    def _judge_live_path(self, expectation: s.Expectation, bindings: Bindings, explainer: Explainer) -> Verdict | None:
        """Look for a path in a trace as it arrives, if there is but one.

        None says nothing: a path that is not there may still come, or be found only by its plan.
        """
        claim, live = expectation.claim, self._live
        traces = self.selected.settled if isinstance(self.selected, SelectedTraces) else {}
        if live is None or len(traces) != 1 or expectation.share is not None or expectation.by is not None:
            return None
        if not isinstance(claim, s.Path) or claim.mode != "some":
            return None
        witnesses = find_live_path(live, claim, bindings, next(iter(traces)))
        return explainer.make_path_matched(witnesses) if witnesses else None

    def _judge_estimate(self, expectation: s.Expectation, bindings: Bindings, explainer: Explainer) -> Verdict:
        """Judge what a sample says of the whole; only complete traces are one."""
        if not self.is_settled and not self.is_nearly_complete:
            return explainer.make_incomplete()
        confidence = (
            DEFAULT_CONFIDENCE
            if expectation.confidence is None
            else to_decimal(evaluate(expectation.confidence, bindings))
        )
        confidence = 1 - (1 - confidence) * self.error_fraction
        traces = "complete" if self.is_nearly_complete else "selected"
        exact = self.error_fraction < 1  # of small shares Wilson's bounds use up more than they say
        estimator = Estimator(self.connection, bindings, confidence, traces, exact=exact)
        claim = expectation.claim
        if isinstance(claim, s.NotWorse):
            return estimator.judge_not_worse(claim)
        assert isinstance(claim, s.ComparisonClaim)  # noqa: S101 (checked before)
        return estimator.judge_limit(claim)

    def _conclude(self, plan: Plan, counts: FindingCounts, explainer: Explainer) -> Verdict:
        settled = self.is_settled
        match plan.family:
            case "all":
                if counts.final_fails:
                    return explainer.make_failure(plan, counts)
                if counts.fails or not settled:
                    return explainer.make_undecided(plan, counts)
                if counts.empty:
                    return explainer.make_indeterminate(plan, counts)
                return explainer.make_pass(plan, counts) if counts.n else explainer.make_nothing_matched(plan)
            case "none":
                if counts.final_fails:
                    return explainer.make_failure(plan, counts)
                return explainer.make_pass(plan, counts) if settled else explainer.make_undecided(plan, counts)
            case "some":
                if counts.final_fails:
                    return explainer.make_failure(plan, counts)
                if counts.n and counts.final_holds == counts.n:
                    return explainer.make_pass(plan, counts)
                return explainer.make_undecided(plan, counts) if counts.n else explainer.make_nothing_matched(plan)
            case "number":
                return self._conclude_number(plan, counts, explainer)

    def _conclude_number(self, plan: Plan, counts: FindingCounts, explainer: Explainer) -> Verdict:
        """While spans are still to come, a number decides only where it can move no further back."""
        if not self.is_settled and not self.is_nearly_complete:
            sample = counts.find_sample(ok=bool(counts.holds))
            sign = sample.note[2] if sample and sample.note else None
            if not plan.is_decided(sign, holds=bool(counts.holds)):
                return explainer.make_undecided(plan, counts)
        if counts.empty or not counts.n:
            return explainer.make_nothing_matched(plan)
        return explainer.make_pass(plan, counts) if counts.holds else explainer.make_failure(plan, counts)

    def _conclude_share(self, plan: Plan, share: s.ShareClause, bindings: Bindings, explainer: Explainer) -> Verdict:
        """``in OP P of traces``: traces that are still open could go either way."""
        traces = judge_traces(self.connection, plan)
        possible = traces.find_possible_results(share.operator, to_decimal(evaluate(share.value, bindings)))
        if possible == {None}:
            return explainer.make_nothing_matched(plan)
        if not traces.n:
            return explainer.make_undecided(plan, FindingCounts())
        return explainer.make_share_verdict(traces, share, passed=possible.pop() if len(possible) == 1 else None)

    def _check_loss(self, plan: Plan, verdict: Verdict) -> Verdict:
        """A bound or absence is not proved by traces of which something was dropped or not sampled."""
        if verdict.outcome is not Outcome.PASS or not plan.depends_on_absence:
            return verdict
        if self._lossy_span_counts is None:
            ((dropped, unsampled),) = self.connection.execute(
                f"SELECT count(*) FILTER ({HAS_DROPPED_SQL}), count(*) FILTER ({IS_UNSAMPLED_SQL})"  # noqa: S608 (fixed conditions)
                f" FROM spans s SEMI JOIN selected USING (trace_id) WHERE {HAS_DROPPED_SQL} OR {IS_UNSAMPLED_SQL}"
            ).fetchall()
            self._lossy_span_counts = (dropped, unsampled)
        dropped, unsampled = self._lossy_span_counts
        if not dropped and not unsampled:
            return verdict
        what = [f"{dropped} spans dropped attributes, events or links"] if dropped else []
        what += [f"{unsampled} spans were not sampled"] if unsampled else []
        return replace(
            verdict, outcome=Outcome.INCONCLUSIVE, id="lossy", reason=f"{verdict.reason}, but {', '.join(what)}"
        )

    def _check_expiry(self, expectation: s.Expectation, verdict: Verdict, *, decided: bool) -> Verdict:
        """A window of which traces were forgotten proves nothing, unless it is `decided` whatever these were."""
        claim = expectation.claim
        compares = isinstance(claim, s.NotWorse) or mentions_baseline(claim)
        windows = (self.selected, self._baseline if compares else None)
        begin_ns = min((each.begin_ns for each in windows if isinstance(each, TraceWindow)), default=None)
        if begin_ns is None or verdict.outcome is Outcome.ERROR:
            return verdict
        # read only now: while the claim was judged, more may have been forgotten
        last_ns = find_last_expired_start_ns(self.connection, begin_ns)
        if last_ns is None:
            return verdict
        reason = f"{verdict.reason}, but traces of its window up to {format_instant(last_ns)} were forgotten"
        if verdict.outcome is not Outcome.PASS or decided:
            return replace(verdict, reason=reason)
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, id="forgotten", reason=reason)


def _is_stable(plan: Plan, counts: FindingCounts) -> bool:
    """Tell whether a number that holds would hold with more traces, too."""
    sample = counts.find_sample(ok=True)
    if plan.family != "number" or sample is None or sample.trace_id is not None:
        return False
    return replace(plan, is_stable=True).is_decided(sample.note[2] if sample.note else None, holds=True)
