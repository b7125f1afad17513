"""Judge of one claim: runs its plan and returns the verdict that the findings support."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import duckdb
from msgspec.structs import replace

from spanproof.assertions.explain.explanation import Explainer
from spanproof.assertions.explain.group_text import choose_worst_group
from spanproof.assertions.explain.text_formatting import format_count
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
from spanproof.assertions.judge.conditional import judge_conditional
from spanproof.assertions.judge.doubts import NOTHING_OPEN, OpenEvidence, find_open_evidence, read_declared_calls
from spanproof.assertions.judge.estimates import read_tests
from spanproof.assertions.judge.sampled_claims import SampledClaim, SampledReading, judge_together
from spanproof.assertions.judge.trace_selection import TraceSelection
from spanproof.collector.traces.retention import find_last_expired_start_ns
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, to_decimal
from spanproof.query_lang.check.operands import is_estimate
from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.check.types import mentions_baseline
from spanproof.query_lang.compile.compiler import compile_claim
from spanproof.query_lang.compile.critical_path import compile_overrun, reads_single_shares
from spanproof.query_lang.compile.resilience import UNDECIDED_REASON, compile_unobserved
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.instants import format_instant

if TYPE_CHECKING:
    from spanproof.collector.traces.live_traces import LiveTraces


class Judge(TraceSelection):
    """Judge of claims about a set of traces in a store; each judge has its own connection.

    Claims about `live` traces use the connection of `live`; paths in a live trace need no query.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        error_share: Decimal = Decimal(1),
        live: LiveTraces | None = None,
        *,
        window_grows: bool = False,
    ) -> None:
        super().__init__(connection)
        self._window_grows = window_grows  # the window is judged again, with more traces
        self._live = live
        self.error_fraction = error_share  # the fraction of its allowed error that each estimate may use
        self._declared_calls = read_declared_calls(connection)
        # of the selected traces, once they were needed: spans that dropped something, and that were not sampled
        self._lossy_span_counts: tuple[int, int] | None = None
        self._open_evidence: OpenEvidence | None = None
        self._sign: int | None = None  # of the last equation that was judged: left minus right

    def make_live_judge(self, live: LiveTraces) -> Judge:
        """Return a judge of arriving traces with the same error fraction."""
        return Judge(live.connection, self.error_fraction, live)

    def clear_counts(self) -> None:
        """Drop what was counted in the traces that were selected before."""
        self._lossy_span_counts = None
        self._open_evidence = None

    def judge(self, expectation: s.Expectation, text: str, bindings: Bindings) -> Verdict:
        """Return the verdict on a claim about the selected traces. Raises duckdb.InterruptException.

        Where the evidence leaves something open, the claim is judged under each reading of it.
        """
        if is_estimate(expectation):
            return self.judge_samples([self.read_sample(expectation, text, bindings)])[0]
        if isinstance(self.selected, TraceWindow) and not self.selected.traces:
            return self._make_explainer(expectation, text, bindings).make_nothing_selected()
        if any(isinstance(part, s.Function) and part.name == "rate" for part in s.walk(expectation.claim)):
            bindings = replace(bindings, window_ns=self.measure_windows())
        open_evidence = self._find_open_evidence()
        readings = open_evidence.list_readings(expectation.claim, self._read_declared(bindings), bindings)
        first: Verdict | None = None
        first_sign: int | None = None
        endless: Verdict | None = None
        for reading, doubts in readings:
            current = replace(bindings, reading=reading)
            self._sign = None
            verdict = self._judge_reading(expectation, text, current)
            if first is None:
                first, first_sign = verdict, self._sign
            elif verdict.outcome != first.outcome or self._sign != first_sign:
                return open_evidence.make_inconclusive(expectation.claim, first, verdict, doubts, bindings.variables)
            elif doubts == ("unfinished",) and reading.is_endless:
                endless = verdict
        assert first is not None  # noqa: S101 (there is at least one reading)
        if first.outcome in (Outcome.PASS, Outcome.FAIL) and self._depends_on_ends(expectation, bindings):
            return open_evidence.make_inconclusive(expectation.claim, first, first, ("unfinished",), bindings.variables)
        if endless is not None:
            return open_evidence.choose_observation(
                self.connection, expectation.claim, first, endless, bindings.variables
            )
        return first

    def _read_declared(self, bindings: Bindings) -> Reading:
        """Return the reading with the declared calls. What a proof declares overrides the rules of the store."""
        return replace(bindings.reading, declared=(*bindings.reading.declared, *self._declared_calls))

    def judge_samples(self, sampled: Sequence[SampledClaim]) -> list[Verdict]:
        """Return the verdicts on estimates, which share the allowed error."""
        return judge_together(sampled, self.error_fraction)

    def read_sample(self, expectation: s.Expectation, text: str, bindings: Bindings) -> SampledClaim:
        """Read the samples of an estimate, in complete traces, to judge it together with others."""
        explainer = self._make_explainer(expectation, text, bindings)
        open_evidence = self._find_open_evidence()
        sampled = SampledClaim(expectation, self.connection, open_evidence, bindings.variables)
        if isinstance(self.selected, TraceWindow) and not self.selected.traces:
            return replace(sampled, verdict=explainer.make_nothing_selected())
        if not self.is_settled and not self.is_nearly_complete:
            return replace(sampled, verdict=explainer.make_incomplete())
        traces = "complete" if self.is_nearly_complete else "selected"
        readings = open_evidence.list_readings(expectation.claim, self._read_declared(bindings), bindings)
        try:
            read = tuple(
                SampledReading(
                    read_tests(self.connection, expectation, current, traces),
                    doubts,
                    current.reading.is_endless,
                    self._is_unobserved(expectation.claim, current),
                )
                for current, doubts in ((replace(bindings, reading=each), doubts) for each, doubts in readings)
            )
        except duckdb.InterruptException:  # the caller cancelled the query and needs no verdict
            raise
        except (MissingValue, duckdb.Error) as error:
            return replace(sampled, verdict=explainer.make_error(str(error)))
        nearest = explainer.suggest_nearest() if read[0].claim.is_empty[0] else None
        is_open = bool(open_evidence.unfinished) and any(
            isinstance(part, s.Function) and part.name == "critical" for part in s.walk(expectation.claim)
        )
        note = self._describe_expired(expectation)
        return replace(sampled, readings=read, nearest=nearest, note=note, depends_on_ends=is_open)

    def _depends_on_ends(self, expectation: s.Expectation, bindings: Bindings) -> bool:
        """Return whether unfinished spans leave shares of a critical path open.

        A share may be largest if a span ended at neither of the two times at which it is assumed to have ended. A trace
        that exceeds the whole budget decides a claim about all traces anyway.
        """
        claim = expectation.claim
        if not self._find_open_evidence().unfinished or not reads_single_shares(claim):
            return False
        if not isinstance(claim, s.Budget) or expectation.share is not None:
            return True
        sql, parameters = compile_overrun(claim, bindings)
        ((is_exceeded,),) = self.connection.execute(sql, parameters).fetchall()
        return not is_exceeded

    def _find_open_evidence(self) -> OpenEvidence:
        """Return what is open in the selected traces. That of live traces changes as their spans arrive."""
        if self._live is not None:
            if not self._live.has_open_evidence:
                return NOTHING_OPEN
            return find_open_evidence(self.connection, has_baseline=self.has_baseline)
        if self._open_evidence is None:
            self._open_evidence = find_open_evidence(self.connection, has_baseline=self.has_baseline)
        return self._open_evidence

    def _make_explainer(self, expectation: s.Expectation, text: str, bindings: Bindings) -> Explainer:
        return Explainer(
            self.connection, expectation, text, bindings, self.selected.missing, has_baseline=self.has_baseline
        )

    def _judge_reading(self, expectation: s.Expectation, text: str, bindings: Bindings) -> Verdict:
        explainer = self._make_explainer(expectation, text, bindings)
        try:
            if isinstance(expectation.claim, s.IfThen):
                return self._judge_conditional(expectation, text, bindings, explainer)
            path_verdict = self._judge_live_path(expectation, bindings, explainer)
            if path_verdict is not None:
                return path_verdict
            numbers_from = "complete" if self.is_nearly_complete else "selected"
            plan = compile_claim(expectation, bindings, numbers_from=numbers_from)
            if expectation.share is not None:
                verdict = self._conclude_share(plan, expectation.share, bindings, explainer)
                verdict = self._check_unobserved(expectation, plan, verdict, bindings)
                verdict = self._check_growth(verdict, can_turn=True)
                return self._check_expiry(expectation, verdict, decided=False)
            groups = count_findings(self.connection, plan, by=bool(expectation.by), all_settled=self.is_settled)
            if not expectation.by:
                counts = groups[()]
                verdict = self._check_loss(plan, self._conclude(plan, counts, explainer))
                verdict = self._check_unobserved(expectation, plan, verdict, bindings)
                verdict = self._check_growth(verdict, can_turn=_can_turn(plan, counts))
                return self._check_expiry(expectation, verdict, decided=_is_stable(plan, counts))
            brief = explainer.without_witnesses()  # only the group that is shown needs witnesses
            judged = {
                group: self._check_growth(
                    self._check_loss(plan, self._conclude(plan, counts, brief)), can_turn=_can_turn(plan, counts)
                )
                for group, counts in groups.items()
            }
            group, verdict = choose_worst_group(judged, groups, expectation.by)
            verdict = replace(verdict, witnesses=self._conclude(plan, groups[group], explainer).witnesses)
            verdict = self._check_unobserved(expectation, plan, verdict, bindings)
            return self._check_expiry(expectation, verdict, decided=False)
        except duckdb.InterruptException:  # the caller cancelled the query and needs no verdict
            raise
        except (MissingValue, duckdb.Error) as error:
            return explainer.make_error(str(error))

    def _judge_conditional(
        self, expectation: s.Expectation, text: str, bindings: Bindings, explainer: Explainer
    ) -> Verdict:
        claim = expectation.claim
        assert isinstance(claim, s.IfThen)  # noqa: S101 (the caller has tested it)
        # rates are per second of the traces in which the condition holds, not of the window
        lengths = {table: ns for table, ns in bindings.window_ns.items() if table == "baseline"}
        inner = replace(bindings, window_ns=lengths)
        verdict = judge_conditional(
            expectation, explainer.claim_text, self, inner, lambda part: self._judge_reading(part, text, inner)
        )
        if verdict.outcome in (Outcome.PASS, Outcome.FAIL) and self._is_unobserved(claim.condition, bindings):
            verdict = replace(verdict, outcome=Outcome.INCONCLUSIVE, id="untold", reason=UNDECIDED_REASON)
        verdict = self._check_growth(verdict, can_turn=expectation.share is not None)
        return self._check_expiry(expectation, verdict, decided=False)

    def _judge_live_path(self, expectation: s.Expectation, bindings: Bindings, explainer: Explainer) -> Verdict | None:
        """Return a passing verdict if the only selected trace, as it arrives, contains the path.

        None leaves the claim open: the path may arrive later, or only its plan may find it.
        """
        claim, live = expectation.claim, self._live
        traces = self.selected.settled if isinstance(self.selected, SelectedTraces) else {}
        if live is None or len(traces) != 1 or expectation.share is not None or expectation.by:
            return None
        if not isinstance(claim, s.Path) or claim.mode != "some":
            return None
        witnesses = find_live_path(live, claim, bindings, next(iter(traces)))
        return explainer.make_path_matched(witnesses) if witnesses else None

    def _conclude(self, plan: Plan, counts: FindingCounts, explainer: Explainer) -> Verdict:
        settled = self.is_settled
        match plan.family:
            case "all":
                if counts.final_fails and isinstance(explainer.claim, s.Budget) and not settled:
                    return explainer.make_overrun(plan, counts)
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
        """Conclude on a number. In incomplete traces it decides only if later spans cannot reverse the result."""
        if plan.operator in ("==", "!=", "in", "not in"):
            sample = counts.find_sample(ok=bool(counts.holds))
            self._sign = sample.note[2] if sample and sample.note else None
        if not self.is_settled and not self.is_nearly_complete:
            sample = counts.find_sample(ok=bool(counts.holds))
            sign = sample.note[2] if sample and sample.note else None
            if not plan.is_decided(sign, holds=bool(counts.holds)):
                return explainer.make_undecided(plan, counts)
        if counts.empty or not counts.n:
            return explainer.make_nothing_matched(plan)
        return explainer.make_pass(plan, counts) if counts.holds else explainer.make_failure(plan, counts)

    def _conclude_share(self, plan: Plan, share: s.ShareClause, bindings: Bindings, explainer: Explainer) -> Verdict:
        """Conclude on ``in OP P of traces``; open traces may still pass or fail."""
        traces = judge_traces(self.connection, plan)
        possible = traces.find_possible_results(share.operator, to_decimal(evaluate(share.value, bindings)))
        if possible == {None}:
            return explainer.make_nothing_matched(plan)
        if not traces.n:
            return explainer.make_undecided(plan, FindingCounts())
        return explainer.make_share_verdict(traces, share, passed=possible.pop() if len(possible) == 1 else None)

    def _check_loss(self, plan: Plan, verdict: Verdict) -> Verdict:
        """Make a passing bound or absence inconclusive if spans were not sampled or parts of them were dropped."""
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
        losses = [f"{format_count(dropped, 'span')} dropped attributes, events or links"] if dropped else []
        losses += (
            [f"{format_count(unsampled, 'span')} {'was' if unsampled == 1 else 'were'} not sampled"]
            if unsampled
            else []
        )
        reason = f"{verdict.reason}, but {' and '.join(losses)}"
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, id="lossy", reason=reason)

    def _check_unobserved(
        self, expectation: s.Expectation, plan: Plan, verdict: Verdict, bindings: Bindings
    ) -> Verdict:
        """Make a verdict about attempts inconclusive if only the callee would show all of them, and sent no span."""
        if verdict.outcome not in (Outcome.PASS, Outcome.FAIL):
            return verdict
        if verdict.outcome is Outcome.PASS and plan.trend == "up" and plan.operator in (">", ">="):
            return verdict  # more attempts would not change it
        if verdict.outcome is Outcome.PASS and isinstance(expectation.claim, s.Timeout):
            return verdict  # nor would shorter ones
        if not self._is_unobserved(expectation.claim, bindings):
            return verdict
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, id="untold", reason=UNDECIDED_REASON)

    def _is_unobserved(self, claim: s.Claim, bindings: Bindings) -> bool:
        """Return whether a claim is about attempts that only the callee would show, and it sent no span."""
        unobserved_sql = compile_unobserved(claim, bindings)
        if unobserved_sql is None:
            return False
        sql, parameters = unobserved_sql
        ((is_unobserved,),) = self.connection.execute(f"SELECT EXISTS ({sql})", parameters).fetchall()
        return bool(is_unobserved)

    def _check_growth(self, verdict: Verdict, *, can_turn: bool) -> Verdict:
        """Make a failure inconclusive if the window can still grow, and more traces could turn it."""
        grows = self._window_grows and isinstance(self.selected, TraceWindow)
        if not (grows and can_turn and verdict.outcome is Outcome.FAIL):
            return verdict
        reason = f"{verdict.reason} so far; more traces could turn this"
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, id="incomplete", reason=reason, final=False)

    def _describe_expired(self, expectation: s.Expectation) -> str:
        """Return that traces of the window were deleted, as a suffix; "" if none was.

        It is called after the traces were read, because more may be deleted meanwhile. The remaining ones are a sample,
        too.
        """
        claim = expectation.claim
        compares = isinstance(claim, s.BaselineTest) or mentions_baseline(claim)
        windows = (self.selected, self.baseline if compares else None)
        begin_ns = min((each.begin_ns for each in windows if isinstance(each, TraceWindow)), default=None)
        last_ns = None if begin_ns is None else find_last_expired_start_ns(self.connection, begin_ns)
        return "" if last_ns is None else f", but traces of the window up to {format_instant(last_ns)} were deleted"

    def _check_expiry(self, expectation: s.Expectation, verdict: Verdict, *, decided: bool) -> Verdict:
        """Make a pass inconclusive if traces of the window were deleted, unless it is `decided` without them."""
        note = "" if verdict.outcome is Outcome.ERROR else self._describe_expired(expectation)
        if not note:
            return verdict
        reason = verdict.reason + note
        if verdict.outcome is not Outcome.PASS or decided:
            return replace(verdict, reason=reason)
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, id="forgotten", reason=reason)


def _can_turn(plan: Plan, counts: FindingCounts) -> bool:
    """Return whether a failure could turn with more traces."""
    if plan.depends_on_all_traces:
        return True
    sample = counts.find_sample(ok=False)
    if plan.family != "number" or (sample is not None and sample.trace_id is not None):
        return False
    sign = sample.note[2] if sample and sample.note else None
    return not replace(plan, is_stable=True).is_decided(sign, holds=False)


def _is_stable(plan: Plan, counts: FindingCounts) -> bool:
    """Return whether a number that holds would also hold with more traces."""
    sample = counts.find_sample(ok=True)
    if plan.family != "number" or sample is None or sample.trace_id is not None:
        return False
    return replace(plan, is_stable=True).is_decided(sample.note[2] if sample.note else None, holds=True)
