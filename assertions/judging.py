"""Judges the claims of a proof: those about stored traces at once, those about requests as their spans arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from spanproof.assertions.arrivals import LULL_S, Arrivals, Needs, find_needs
from spanproof.assertions.belonging import Belonging
from spanproof.assertions.evaluate import Judge
from spanproof.assertions.events import Event, Judged, Waiting
from spanproof.assertions.evidence import TraceView, name_choice, view_trace
from spanproof.assertions.requests import Sent
from spanproof.assertions.responses import judge_response
from spanproof.assertions.selected import Selected
from spanproof.assertions.verdict import Outcome, Verdict
from spanproof.collector.calls import derive
from spanproof.collector.completeness import State
from spanproof.collector.flushes import find_flushes
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings
from spanproof.query_lang.parse import ProofFile

PICTURE_NS: Final = 500_000_000  # how long a failure waits, at most, for the rest of the trace that shows it
MOST_LULL_S: Final = 0.2  # two thirds of the shortest time to settle in; the rest is for finding out
TELL_EVERY_S: Final = 1.0  # how often it is said what is still to come, at least


@dataclass(frozen=True, slots=True)
class Settle:
    """How long to wait at most, and how long nothing may arrive (None: as the trace demands)."""

    limit_ns: int = 15_000_000_000
    quiet_ns: int | None = None

    @property
    def lull_s(self) -> float:
        """How long nothing may arrive before it is looked for what is still to come."""
        return min(MOST_LULL_S, self.quiet_ns / 1.5e9) if self.quiet_ns is not None else MOST_LULL_S


@dataclass(frozen=True, slots=True)
class Planned:
    """A claim to judge, with the values of its names and the file that its positions belong to."""

    file: ProofFile
    expectation: s.Expectation
    bindings: Bindings


@dataclass(slots=True)
class Segment:
    """Claims about the same traces: those of one ``when``, or of one ``given``."""

    sent: Sent | None = None
    shown: str | None = None  # the trace to show of those of a request
    given: s.Given | None = None
    given_bindings: Bindings = field(default_factory=Bindings)
    planned: list[Planned] = field(default_factory=list)
    judged: dict[int, Judged] = field(default_factory=dict)  # by place in `planned`

    @property
    def open(self) -> int:
        """How many claims are not judged yet."""
        return len(self.planned) - len(self.judged)

    def needs(self) -> Iterable[Needs]:
        """What each open claim needs; nothing, where that cannot be told."""
        if self.sent is None or not self.sent.answers:  # what began before may have had everything
            return [()]
        return (
            find_needs(each.expectation, each.bindings)
            for place, each in enumerate(self.planned)
            if place not in self.judged
        )

    @property
    def passed(self) -> bool:
        """All claims are judged, and hold."""
        return not self.open and all(each.verdict.outcome is Outcome.PASS for each in self.judged.values())

    @property
    def trace_ids(self) -> tuple[str, ...]:
        """The traces of the requests themselves."""
        return tuple(each.trace_id for each in self.sent.contexts) if self.sent is not None else ()


class Judging:
    """Judges the claims of one proof, and tells verdicts and what it waits for.

    `check` is called before each step; what it raises ends the judging. `notes` is added to.
    """

    def __init__(
        self,
        store: Store,
        judge: Judge,
        proof: s.Proof,
        emit: Callable[[Event], None],
        arrivals: Arrivals,
        check: Callable[[], None],
        notes: list[str],
    ) -> None:
        self._store = store
        self._judge = judge
        self._connection = judge.connection
        self._proof = proof
        self._emit = emit
        self._arrivals = arrivals
        self._check = check
        self._notes = notes
        self._deadline_ns = 0  # by `time.monotonic_ns`, of the segment that is judged

    def judge(
        self, segments: Iterable[Segment], baselines: Iterable[tuple[s.Given, Bindings]], settle: Settle
    ) -> TraceView | None:
        """Judge every segment; return the trace that shows the first failure."""
        compares = False
        for given, bound in baselines:
            self._check()
            derive(self._store)
            self._judge.select_window(given, bound)
            compares = True
        view = None
        for segment in segments:
            self._check()
            if segment.given is not None:
                derive(self._store)
                self._judge.select_window(segment.given, segment.given_bindings)
                self._judge_segment(segment, self._judge, live=False)
            elif segment.sent is not None:
                belonging = Belonging(segment.sent)
                began = bool(segment.sent.answers)  # what was there before us has not been seen to arrive
                self._arrivals.own_only = began and not compares and not belonging.replaced
                self._judge_as_spans_arrive(segment, belonging, settle)
            view = view or self._view(segment)
        self._check()
        return view

    def _judge_as_spans_arrive(self, segment: Segment, belonging: Belonging, settle: Settle) -> None:
        """Judge on every arrival until each verdict is final, the trace is settled, or time is up."""
        self._deadline_ns = time.monotonic_ns() + settle.limit_ns
        woken = True
        try:
            while not (woken and self._judge_in_memory(segment, settle.lull_s)):
                wait_ns = self._judge_in_store(segment, belonging, settle.quiet_ns)
                if wait_ns is None:
                    return
                woken = self._wait(segment, wait_ns / 1e9)
        finally:
            self._notes += belonging.describe(self._connection)

    def _judge_in_memory(self, segment: Segment, lull_s: float) -> bool:
        """Judge what has arrived as long as more arrives, and that is all that matters; tell whether all has passed.

        What is still to come is not looked for: that takes the store to be brought up to date, and longer than many a
        verdict.
        """
        until = min(self._deadline_ns / 1e9, time.monotonic() + TELL_EVERY_S)
        judge = None
        while (live := self._arrivals.live) is not None:
            if judge is None:
                judge = self._judge.in_memory(live)
                judge.select(Selected(dict.fromkeys(segment.trace_ids, False), live=True))
            self._arrivals.begin_look()
            self._check()
            if self._may_decide(segment) and live.show():
                self._judge_segment(segment, judge, live=True)
                if segment.passed:
                    return True
            seconds = min(lull_s, until - time.monotonic())
            if seconds <= 0 or not self._arrivals.wait(seconds):
                break
        return False

    def _judge_in_store(self, segment: Segment, belonging: Belonging, quiet_ns: int | None) -> int | None:
        """Judge what the store has, and look for what is still to come.

        Returns for how many nanoseconds to wait for that; None where nothing can change any more.
        """
        if self._arrivals.live is None:  # else what arrives from now on is judged in memory, next
            self._arrivals.begin_look()
        self._check()
        derive(self._store)
        traces = belonging.relate(self._connection)
        if not belonging.replaced and self._arrivals.live is None:
            self._judge.select(Selected(dict.fromkeys(traces, False), live=True))
            # what is still to come is looked for only after that: it takes longer than many a verdict
            self._judge_segment(segment, self._judge, live=True)
            if segment.passed:
                return None
        state = belonging.examine(self._connection, traces)
        segment.shown = belonging.find_shown(state)
        until_ns = state.quiet_until_ns(quiet_ns)
        settled = until_ns is not None and time.time_ns() >= until_ns
        late = time.monotonic_ns() >= self._deadline_ns
        live = not (settled or late)
        if not live or belonging.replaced:
            awaited = find_flushes(self._connection, state) if late and not settled else _words(state)
            self._judge.select(Selected(dict.fromkeys(state.traces, settled), live, awaited))
            self._judge_segment(segment, self._judge, live=live)
        if not segment.open:
            if not live or segment.passed:
                return None
            self._deadline_ns = min(self._deadline_ns, time.monotonic_ns() + PICTURE_NS)
        self._emit(Waiting(self._proof, _words(state), segment.open))
        wait_ns = self._deadline_ns - time.monotonic_ns()
        return wait_ns if until_ns is None else min(wait_ns, until_ns - time.time_ns())

    def _may_decide(self, segment: Segment) -> bool:
        """Tell whether what has arrived may decide an open claim."""
        return not segment.open or not all(map(self._arrivals.lack, segment.needs()))

    def _wait(self, segment: Segment, seconds: float) -> bool:
        """Wait for spans that may decide an open claim; not for long, once there are some that cannot.

        Tells whether any have arrived.
        """
        until = time.monotonic() + seconds
        woken = False
        while self._arrivals.wait(until - time.monotonic()):
            self._check()
            woken = True
            if self._arrivals.live is not None or self._may_decide(segment):
                break
            self._arrivals.begin_look()
            until = min(until, time.monotonic() + LULL_S)
        return woken

    def _judge_segment(self, segment: Segment, judge: Judge, *, live: bool) -> None:
        """Judge the claims still open; keep what is final, or all when nothing more is waited for."""
        for place, planned in enumerate(segment.planned):
            if place in segment.judged:
                continue
            self._check()
            verdict = _find_verdict(judge, planned)
            if verdict.final or not live:
                segment.judged[place] = Judged(planned.file, planned.expectation, replace(verdict, final=True))
                self._emit(segment.judged[place])

    def _view(self, segment: Segment) -> TraceView | None:
        """Lay out the trace that shows what is wrong, its witnesses marked."""
        wrong = [each.verdict for each in segment.judged.values() if each.verdict.outcome is not Outcome.PASS]
        witnesses = [witness for verdict in wrong for witness in verdict.witnesses]
        if not wrong:
            return None
        one = segment.sent is not None and len(segment.sent.contexts) == 1
        trace_id = segment.shown if one or not witnesses else witnesses[0].trace_id
        if trace_id is None:
            return None
        view = view_trace(self._connection, trace_id, marked={witness.span_id for witness in witnesses})
        if view is None or one or not witnesses:
            return view
        shown = next(each for each in segment.judged.values() if witnesses[0] in each.verdict.witnesses)
        return replace(view, choice=name_choice(shown.expectation))


def _find_verdict(judge: Judge, planned: Planned) -> Verdict:
    about = (planned.expectation, planned.file.text, planned.bindings)
    return judge_response(judge, *about, Path(planned.file.path).parent) or judge.judge(*about)


def _words(state: State) -> tuple[str, ...]:
    return tuple(str(missing) for missing in state.missing)
