"""Judging of a proof's claims: about stored traces at once, about requests as their spans arrive."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.assertions.explain.likely_cause import LikelyCause, find_likely_causes
from spanproof.assertions.explain.trace_evidence import TraceView, build_trace_view, describe_choice
from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.assertions.judge.responses import judge_response
from spanproof.assertions.judge.sampled_claims import SampledClaim
from spanproof.assertions.run.arrival_notifications import (
    DEBOUNCE_S,
    ArrivalListener,
    ServiceRequirements,
    find_required_services,
)
from spanproof.assertions.run.events import ClaimJudged, RunEvent, WaitingForSpans
from spanproof.assertions.run.proof_requests import SentRequests
from spanproof.assertions.run.trace_correlation import TraceCorrelation
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.interface import SpanStore
from spanproof.collector.traces.completeness import Completeness
from spanproof.collector.traces.export_intervals import describe_missing_spans
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.check.operands import is_estimate
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile

TRACE_VIEW_WAIT_NS: Final = 500_000_000  # longest wait after a failure for the rest of the trace that shows it
MAX_IDLE_S: Final = 0.2  # two thirds of the shortest settle time; the rest is for the completeness check
PROGRESS_INTERVAL_S: Final = 1.0  # longest interval between reports of the missing spans


class SettleLimits(Struct, frozen=True):
    """The time limit, and the time without arriving spans that ends the wait (None: depends on the trace)."""

    limit_ns: int = 15_000_000_000
    quiet_ns: int | None = None

    @property
    def idle_s(self) -> float:
        """Idle time before the missing spans are computed."""
        return min(MAX_IDLE_S, self.quiet_ns / 1.5e9) if self.quiet_ns is not None else MAX_IDLE_S


class PlannedClaim(Struct, frozen=True):
    """A claim to judge, with its bindings and the file that its positions refer to."""

    file: ParsedFile
    expectation: s.Expectation
    bindings: Bindings


class ClaimGroup(Struct):
    """Claims about the same traces: those of one ``when``, or of one ``given``."""

    sent_requests: SentRequests | None = None
    displayed_trace_id: str | None = None  # the trace to show for a request
    given: s.Given | None = None
    given_bindings: Bindings = field(default_factory=Bindings)
    planned: list[PlannedClaim] = field(default_factory=list)
    judged: dict[int, ClaimJudged] = field(default_factory=dict)  # by index in `planned`
    sampled: dict[int, SampledClaim] = field(default_factory=dict)  # estimates, to be judged together

    @property
    def open_count(self) -> int:
        """Number of claims that are neither judged nor sampled yet."""
        return len(self.planned) - len(self.judged) - len(self.sampled)

    def list_required_services(self) -> Iterable[ServiceRequirements]:
        """Return the services that each open claim requires; empty requirements if they are unknown."""
        if self.sent_requests is None or not self.sent_requests.responses:  # all spans may have arrived earlier
            return [()]
        return (
            find_required_services(each.expectation, each.bindings)
            for index, each in enumerate(self.planned)
            if index not in self.judged and index not in self.sampled
        )

    @property
    def has_passed(self) -> bool:
        """Return whether all claims are judged and passed."""
        is_complete = len(self.judged) == len(self.planned)
        return is_complete and all(each.verdict.outcome is Outcome.PASS for each in self.judged.values())

    @property
    def trace_ids(self) -> tuple[str, ...]:
        """The traces of the requests themselves."""
        return tuple(each.trace_id for each in self.sent_requests.contexts) if self.sent_requests is not None else ()


class ProofJudge:
    """Judge of the claims of one proof; emits verdicts and the spans that it waits for.

    It calls `check` before each step; an exception from `check` ends the judging. It appends to `notes`.
    """

    def __init__(
        self,
        store: SpanStore,
        judge: Judge,
        proof: s.Proof,
        emit: Callable[[RunEvent], None],
        arrival_listener: ArrivalListener,
        check: Callable[[], None],
        notes: list[str],
    ) -> None:
        self._store = store
        self._judge = judge
        self._connection = judge.connection
        self._proof = proof
        self._emit = emit
        self._arrival_listener = arrival_listener
        self._raise_if_cancelled = check
        self._notes = notes
        self._deadline_ns = 0  # by `time.monotonic_ns`, for the current claim group

    def judge_groups(
        self, groups: Iterable[ClaimGroup], baselines: Iterable[tuple[s.Given, Bindings]], settle: SettleLimits
    ) -> tuple[TraceView | None, tuple[LikelyCause, ...]]:
        """Judge every claim group. Return the trace that shows the first failure, and its likely causes."""
        groups = list(groups)
        has_baseline = False
        for given, given_bindings in baselines:
            self._raise_if_cancelled()
            derive_calls(self._store)
            self._judge.select_window(given, given_bindings)
            has_baseline = True
        for group in groups:
            self._raise_if_cancelled()
            if group.given is not None:
                derive_calls(self._store)
                self._judge.select_window(group.given, group.given_bindings)
                self._judge_group(group, self._judge, live=False)
            elif group.sent_requests is not None:
                correlation = TraceCorrelation(group.sent_requests)
                # earlier spans caused no notification
                was_sent = bool(group.sent_requests.responses)
                self._arrival_listener.is_own_traces_only = (
                    was_sent and not has_baseline and not correlation.has_replacements
                )
                self._judge_as_spans_arrive(group, correlation, settle)
        self._judge_estimates(groups)
        self._raise_if_cancelled()
        view = next((view for group in groups if (view := self._build_view(group)) is not None), None)
        return view, self._find_likely_causes(groups) if has_baseline else ()

    def _find_likely_causes(self, groups: Iterable[ClaimGroup]) -> tuple[LikelyCause, ...]:
        """Return the services in which the first window with a failure differs from the baseline."""
        for group in groups:
            failed = any(each.verdict.outcome is Outcome.FAIL for each in group.judged.values())
            if group.given is not None and failed:
                self._judge.select_window(group.given, group.given_bindings)
                return find_likely_causes(self._connection, "complete")
        return ()

    def _judge_estimates(self, groups: Iterable[ClaimGroup]) -> None:
        """Judge the estimates of the proof together: they share the allowed error."""
        places = [(group, index) for group in groups for index in group.sampled]
        verdicts = self._judge.judge_samples([group.sampled[index] for group, index in places])
        for (group, index), verdict in zip(places, verdicts, strict=True):
            planned = group.planned[index]
            group.judged[index] = ClaimJudged(planned.file, planned.expectation, replace(verdict, final=True))
            self._emit(group.judged[index])

    def _judge_as_spans_arrive(self, group: ClaimGroup, correlation: TraceCorrelation, settle: SettleLimits) -> None:
        """Judge on every arrival until each verdict is final, the trace is settled, or the time limit is reached."""
        self._deadline_ns = time.monotonic_ns() + settle.limit_ns
        woken = True
        try:
            while not (woken and self._judge_in_memory(group, settle.idle_s)):
                wait_ns = self._judge_in_store(group, correlation, settle.quiet_ns)
                if wait_ns is None:
                    return
                woken = self._wait_for_spans(group, wait_ns / 1e9)
        finally:
            self._notes += correlation.describe_correlated(self._connection)

    def _judge_in_memory(self, group: ClaimGroup, idle_s: float) -> bool:
        """Judge the live traces in memory while spans arrive. Return whether all claims passed.

        It does not compute the missing spans: that requires an up-to-date store and takes longer than most verdicts.
        """
        deadline_s = min(self._deadline_ns / 1e9, time.monotonic() + PROGRESS_INTERVAL_S)
        judge = None
        while (live := self._arrival_listener.live_traces) is not None:
            if judge is None:
                judge = self._judge.make_live_judge(live)
                judge.select_traces(SelectedTraces(dict.fromkeys(group.trace_ids, False), live=True))
            self._arrival_listener.acknowledge()
            self._raise_if_cancelled()
            if self._is_possibly_decisive(group) and live.publish():
                self._judge_group(group, judge, live=True)
                if group.has_passed:
                    return True
            seconds = min(idle_s, deadline_s - time.monotonic())
            if seconds <= 0 or not self._arrival_listener.wait(seconds):
                break
        return False

    def _judge_in_store(self, group: ClaimGroup, correlation: TraceCorrelation, quiet_ns: int | None) -> int | None:
        """Judge the stored traces and compute their missing spans.

        Return the nanoseconds to wait for them, or None if no verdict can change any more.
        """
        if self._arrival_listener.live_traces is None:  # else new spans are judged in memory next
            self._arrival_listener.acknowledge()
        self._raise_if_cancelled()
        derive_calls(self._store)
        traces = correlation.find_traces(self._connection)
        if not correlation.has_replacements and self._arrival_listener.live_traces is None:
            self._judge.select_traces(SelectedTraces(dict.fromkeys(traces, False), live=True))
            # computing the missing spans takes longer than most verdicts and is therefore done afterwards
            self._judge_group(group, self._judge, live=True)
            if group.has_passed:
                return None
        state = correlation.examine_completeness(self._connection, traces)
        group.displayed_trace_id = correlation.choose_displayed_trace(state)
        times = state.compute_settle_times_ns(quiet_ns)
        now_ns = time.time_ns()
        settled = times is not None and now_ns >= times.absence_ns
        until_ns = None if times is None else times.turnable_ns if settled else times.absence_ns
        is_time_up = time.monotonic_ns() >= self._deadline_ns
        live = not (settled or is_time_up)
        if not live or correlation.has_replacements:
            awaited = (
                describe_missing_spans(self._connection, state)
                if is_time_up and not settled
                else _describe_missing(state)
            )
            self._judge.select_traces(SelectedTraces(dict.fromkeys(state.trace_ids, settled), live, awaited))
            keeps_turnable = settled and times is not None and now_ns < times.turnable_ns and not is_time_up
            waited_ns = None
            if settled and times is not None and state.last_arrived_ns is not None:
                waited_ns = times.absence_ns - state.last_arrived_ns
            self._judge_group(group, self._judge, live=live, keeps_turnable=keeps_turnable, waited_ns=waited_ns)
        if not group.open_count:
            if not live or group.has_passed:
                return None
            self._deadline_ns = min(self._deadline_ns, time.monotonic_ns() + TRACE_VIEW_WAIT_NS)
        self._emit(WaitingForSpans(self._proof, _describe_missing(state), group.open_count))
        wait_ns = self._deadline_ns - time.monotonic_ns()
        return wait_ns if until_ns is None else min(wait_ns, until_ns - time.time_ns())

    def _is_possibly_decisive(self, group: ClaimGroup) -> bool:
        """Return whether the spans that have arrived may decide an open claim."""
        return not group.open_count or not all(
            map(self._arrival_listener.is_service_missing, group.list_required_services())
        )

    def _wait_for_spans(self, group: ClaimGroup, seconds: float) -> bool:
        """Wait for spans that may decide an open claim, or briefly after spans that cannot.

        Return whether any spans arrived.
        """
        deadline_s = time.monotonic() + seconds
        woken = False
        while self._arrival_listener.wait(deadline_s - time.monotonic()):
            self._raise_if_cancelled()
            woken = True
            if self._arrival_listener.live_traces is not None or self._is_possibly_decisive(group):
                break
            self._arrival_listener.acknowledge()
            deadline_s = min(deadline_s, time.monotonic() + DEBOUNCE_S)
        return woken

    def _judge_group(
        self,
        group: ClaimGroup,
        judge: Judge,
        *,
        live: bool,
        keeps_turnable: bool = False,
        waited_ns: int | None = None,
    ) -> None:
        """Judge the open claims. Keep final verdicts; keep all verdicts if no more spans are awaited (not `live`).

        With `keeps_turnable`, claims that did not pass stay open, as more spans could turn their verdicts. A pass after
        `waited_ns` without a span says so.
        """
        for index, planned in enumerate(group.planned):
            if index in group.judged or index in group.sampled:
                continue
            self._raise_if_cancelled()
            if is_estimate(planned.expectation):
                if not live and not keeps_turnable:
                    group.sampled[index] = judge.read_sample(planned.expectation, planned.file.text, planned.bindings)
                continue
            verdict = _judge_claim(judge, planned)
            if keeps_turnable and verdict.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
                continue
            if verdict.final or not live:
                if waited_ns is not None and verdict.outcome is Outcome.PASS:
                    verdict = replace(
                        verdict, reason=f"{verdict.reason}, {_format_wait(waited_ns)} after the last span"
                    )
                group.judged[index] = ClaimJudged(planned.file, planned.expectation, replace(verdict, final=True))
                self._emit(group.judged[index])

    def _build_view(self, group: ClaimGroup) -> TraceView | None:
        """Return the trace that shows the claims that did not pass, with marked witnesses; None if all passed."""
        not_passed = [each.verdict for each in group.judged.values() if each.verdict.outcome is not Outcome.PASS]
        witnesses = [witness for verdict in not_passed for witness in verdict.witnesses]
        if not not_passed:
            return None
        is_single_request = group.sent_requests is not None and len(group.sent_requests.contexts) == 1
        trace_id = group.displayed_trace_id if is_single_request or not witnesses else witnesses[0].trace_id
        if trace_id is None:
            return None
        view = build_trace_view(self._connection, trace_id, marked={witness.span_id for witness in witnesses})
        if view is None or is_single_request or not witnesses:
            return view
        shown = next(each for each in group.judged.values() if witnesses[0] in each.verdict.witnesses)
        return dataclasses.replace(view, choice=describe_choice(shown.expectation))


def _judge_claim(judge: Judge, planned: PlannedClaim) -> Verdict:
    arguments = (planned.expectation, planned.file.text, planned.bindings)
    return judge_response(judge, *arguments, Path(planned.file.path).parent) or judge.judge(*arguments)


def _format_wait(ns: int) -> str:
    return f"{ns / 1e9:.1f} s" if ns < 10**11 else f"{ns // 10**9} s"


def _describe_missing(state: Completeness) -> tuple[str, ...]:
    return tuple(str(missing) for missing in state.missing)
