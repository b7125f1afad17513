"""One proof being carried out: its requests sent, its spans waited for, its claims judged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import duckdb

from spanproof.assertions.arrivals import LULL_S, Arrivals, Begun, Needs, find_needs
from spanproof.assertions.belonging import Belonging
from spanproof.assertions.consequences import mark_consequences
from spanproof.assertions.evaluate import Judge
from spanproof.assertions.events import Event, Judged, ProofFinished, Sending, Waiting
from spanproof.assertions.evidence import TraceView, name_choice, view_trace
from spanproof.assertions.requests import Sender, Sent
from spanproof.assertions.responses import judge_response
from spanproof.assertions.selected import Selected
from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.assertions.triggers.targets import Targets
from spanproof.assertions.verdict import Outcome, Verdict, worst
from spanproof.collector.calls import derive
from spanproof.collector.completeness import State
from spanproof.collector.flushes import find_flushes
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, Constant, NoValue, evaluate, number
from spanproof.query_lang.diagnostics import locate
from spanproof.query_lang.modules import Module
from spanproof.query_lang.parse import ProofFile
from spanproof.query_lang.secrecy import Secrets

SETTLE_NS: Final = 15_000_000_000
PICTURE_NS: Final = 500_000_000  # how long a failure waits, at most, for the rest of the trace that shows it


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
    def failed(self) -> bool:
        """Some claim did not pass."""
        return any(each.verdict.outcome is not Outcome.PASS for each in self.judged.values())


class ProofRun:
    """Carries out one proof."""

    def __init__(
        self,
        store: Store,
        emit: Callable[[Event], None],
        module: Module,
        proof: s.Proof,
        variables: Mapping[str, str],
        run_id: str,
        targets: Targets | None = None,
        error_share: Decimal = Decimal(1),
        secrets: Secrets | None = None,
        begun: Begun | None = None,
        sent: Sent | None = None,
    ) -> None:
        self.store = store
        self.emit = emit
        self.module = module
        self.proof = proof
        self.variables = variables
        self.error_share = error_share
        self.secrets = Secrets() if secrets is None else secrets
        self.notes: list[str] = []
        self.begun = {} if begun is None else begun
        self._sender = Sender(store, Path(module.file.path).parent, run_id, targets, self._pause)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._cancelled = threading.Event()
        self._arrivals = Arrivals(store, self.begun, self)
        # what others have sent already, if the proof is to begin with claims about that
        self.segments: list[Segment] = [] if sent is None else [Segment(sent)]
        self.baselines: list[tuple[s.Given, Bindings]] = []

    def cancel(self) -> None:
        """End it as an error, from another thread, as soon as may be."""
        self._cancelled.set()
        self._arrivals.wake()
        connection = self._connection
        if connection is not None:
            with suppress(duckdb.ConnectionException):  # it has just come to its end
                connection.interrupt()

    def carry_out(self) -> Outcome:
        """Carry out the proof, its ``after`` whatever happens; return the outcome that was told."""
        started = time.perf_counter_ns()
        error: str | None = None
        view: TraceView | None = None
        variables = {name: Constant(value, "text") for name, value in self.variables.items()}
        bindings = Bindings(variables, secrets=self.secrets)
        try:
            bindings = self._bind((let for _, let in self.module.library.lets), bindings)
            bindings = self._bind(self.module.file.items, bindings)
            self._stop_if_cancelled()
            try:
                self._run_hooks("before", bindings)
                with self._arrivals:
                    bindings = self._walk(bindings)
                    view = self._judge_all(bindings)
            finally:
                self._run_hooks("after", bindings)
        except (TriggerFailed, NoValue, duckdb.Error) as problem:
            error = "the run was cancelled" if self._cancelled.is_set() else self._describe(problem)
        judged = mark_consequences([[each.judged[place] for place in sorted(each.judged)] for each in self.segments])
        outcome = Outcome.ERROR if error else worst([each.verdict.outcome for each in judged])
        took = time.perf_counter_ns() - started
        notes = tuple(self.notes)
        self.emit(ProofFinished(self.module.file, self.proof, outcome, judged, view, took, error, notes=notes))
        return outcome

    def _describe(self, problem: Exception) -> str:
        """Say in a line what went wrong, and where in the text, if it is that."""
        line = str(problem).splitlines()[0]
        if not isinstance(problem, TriggerFailed) or problem.at is None:
            return line
        place = locate(self.module.file.text, problem.at.start)
        return f"{self.module.file.path}:{place.line}:{place.column}: {line}"

    # ## Statements

    def _bind(self, items: Iterable[object], bindings: Bindings) -> Bindings:
        for item in items:
            if isinstance(item, s.Let) and item.name.text not in self.variables:
                value = evaluate(item.value, bindings)
                bindings = replace(bindings, variables={**bindings.variables, item.name.text: value})
        return bindings

    def _walk(self, bindings: Bindings) -> Bindings:
        """Carry out the statements in order; claims are kept for when their spans have come."""
        for statement in self.proof.statements:
            match statement:
                case s.Let():
                    bindings = self._bind((statement,), bindings)
                case s.When():
                    sent = self._sender.send(statement, bindings, self._tell_sent)
                    bindings = sent.bind(statement, bindings)
                    self.segments.append(Segment(sent))
                    self.notes += [sent.note] if sent.note else []
                    if statement.kind != "trace":
                        self.begun |= dict.fromkeys((context.trace_id for context in sent.contexts), self)
                case s.Given(baseline=True):
                    self.baselines.append((statement, bindings))
                case s.Given():
                    self.segments.append(Segment(given=statement, given_bindings=bindings))
                case s.Expectation():
                    self.segments[-1].planned.append(Planned(self.module.file, statement, bindings))
                case s.Apply():
                    self.segments[-1].planned += self._apply(statement, bindings)
        return bindings

    def _apply(self, apply: s.Apply, bindings: Bindings) -> list[Planned]:
        """Return the claims of a definition, its parameters bound; a bare name is a service's."""
        definition = self.module.library.defines[apply.name]
        inner = bindings
        for parameter, argument in zip(definition.define.parameters, apply.arguments, strict=True):
            if isinstance(argument, s.Name) and argument.text not in bindings.variables:
                value: Constant | None = Constant(argument.text, "text")
            else:
                value = evaluate(argument, bindings)
            inner = replace(inner, variables={**inner.variables, parameter.text: value})
        planned = []
        for statement in definition.define.statements:
            inner = self._bind((statement,), inner)
            if isinstance(statement, s.Expectation):
                planned.append(Planned(definition.file, statement, inner))
        return planned

    def _tell_sent(self, done: int, total: int) -> None:
        self.emit(Sending(self.proof, done, total))

    def _pause(self, seconds: float) -> None:
        """Wait, unless the run is cancelled. Raises TriggerFailed if it is."""
        self._cancelled.wait(seconds)
        self._stop_if_cancelled()

    def _run_hooks(self, time_: str, bindings: Bindings) -> None:
        """Send the requests that prepare or clean up."""
        hooks = [item for item in self.module.file.items if isinstance(item, s.Hook)]
        hooks += [item for item in self.proof.statements if isinstance(item, s.Hook)]
        if time_ == "after":
            hooks.reverse()
        for hook in hooks:
            inner = bindings
            for statement in hook.statements if hook.time == time_ else ():
                inner = self._bind((statement,), inner)
                if isinstance(statement, s.When):
                    inner = self._sender.prepare(statement, inner, time_, self._tell_sent)

    # ## Judging

    def _judge_all(self, bindings: Bindings) -> TraceView | None:
        """Judge every segment; return the trace that shows the first failure."""
        connection = self._connection = self.store.cursor()
        try:
            judge = Judge(connection, self.error_share)
            derive(self.store)
            for given, bound in self.baselines:
                self._stop_if_cancelled()
                judge.select_window(given, bound)
            limit_ns, quiet_ns = self._settle(bindings)
            view = None
            for segment in self.segments:
                self._stop_if_cancelled()
                if segment.given is not None:
                    judge.select_window(segment.given, segment.given_bindings)
                    self._judge(judge, segment, live=False)
                elif segment.sent is not None:
                    self._judge_as_spans_arrive(judge, segment, Belonging(segment.sent), limit_ns, quiet_ns)
                view = view or self._view(connection, segment)
            self._stop_if_cancelled()
            return view
        finally:
            self._connection = None
            connection.close()

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise TriggerFailed("the run was cancelled")

    def _judge_as_spans_arrive(
        self, judge: Judge, segment: Segment, belonging: Belonging, limit_ns: int, quiet_ns: int | None
    ) -> None:
        """Judge on every arrival until each verdict is final, the trace is settled, or time is up."""
        deadline = time.monotonic_ns() + limit_ns
        try:
            while True:
                self._arrivals.begin_look()
                self._stop_if_cancelled()
                derive(self.store)
                traces = belonging.relate(judge.connection)
                if not belonging.replaced:
                    judge.select(Selected(dict.fromkeys(traces, False), live=True))
                    # what is still to come is looked for only after that: it takes longer than many a verdict
                    self._judge(judge, segment, live=True)
                    if not segment.open and not segment.failed:
                        return
                state = belonging.examine(judge.connection, traces)
                segment.shown = belonging.find_shown(state)
                until_ns = state.quiet_until_ns(quiet_ns)
                settled = until_ns is not None and time.time_ns() >= until_ns
                late = time.monotonic_ns() >= deadline
                live = not (settled or late)
                if not live or belonging.replaced:
                    awaited = find_flushes(judge.connection, state) if late and not settled else _words(state)
                    judge.select(Selected(dict.fromkeys(state.traces, settled), live, awaited))
                    self._judge(judge, segment, live=live)
                open_claims = segment.open
                if not open_claims:
                    if not live or not segment.failed:
                        return
                    deadline = min(deadline, time.monotonic_ns() + PICTURE_NS)
                self.emit(Waiting(self.proof, _words(state), open_claims))
                wait_ns = deadline - time.monotonic_ns()
                if until_ns is not None:
                    wait_ns = min(wait_ns, until_ns - time.time_ns())
                self._wait(segment, wait_ns / 1e9)
        finally:
            self.notes += belonging.describe(judge.connection)

    def _wait(self, segment: Segment, seconds: float) -> None:
        """Wait for spans that may decide an open claim; not for long, once there are some that cannot."""
        until = time.monotonic() + seconds
        while self._arrivals.wait(until - time.monotonic()):
            if self._cancelled.is_set() or not segment.open or not all(map(self._arrivals.lack, segment.needs())):
                return
            self._arrivals.begin_look()
            until = min(until, time.monotonic() + LULL_S)

    def _judge(self, judge: Judge, segment: Segment, *, live: bool) -> None:
        """Judge the claims still open; keep what is final, or all when nothing more is waited for."""
        for place, planned in enumerate(segment.planned):
            if place in segment.judged:
                continue
            self._stop_if_cancelled()
            verdict = self._verdict(judge, planned)
            if verdict.final or not live:
                segment.judged[place] = Judged(planned.file, planned.expectation, replace(verdict, final=True))
                self.emit(segment.judged[place])

    def _verdict(self, judge: Judge, planned: Planned) -> Verdict:
        about = (planned.expectation, planned.file.text, planned.bindings)
        return judge_response(judge, *about, Path(planned.file.path).parent) or judge.judge(*about)

    def _settle(self, bindings: Bindings) -> tuple[int, int | None]:
        """Return how long to wait at most, and how long nothing may arrive (None: as the trace demands)."""
        for item in self.proof.statements:
            if isinstance(item, s.Settle):
                quiet = int(number(evaluate(item.quiet, bindings))) if item.quiet is not None else None
                return int(number(evaluate(item.limit, bindings))), quiet
        return SETTLE_NS, None

    def _view(self, connection: duckdb.DuckDBPyConnection, segment: Segment) -> TraceView | None:
        """Lay out the trace that shows what is wrong, its witnesses marked."""
        wrong = [each.verdict for each in segment.judged.values() if each.verdict.outcome is not Outcome.PASS]
        witnesses = [witness for verdict in wrong for witness in verdict.witnesses]
        if not wrong:
            return None
        one = segment.sent is not None and len(segment.sent.contexts) == 1
        trace_id = segment.shown if one or not witnesses else witnesses[0].trace_id
        if trace_id is None:
            return None
        view = view_trace(connection, trace_id, marked={witness.span_id for witness in witnesses})
        if view is None or one or not witnesses:
            return view
        shown = next(each for each in segment.judged.values() if witnesses[0] in each.verdict.witnesses)
        return replace(view, choice=name_choice(shown.expectation))


def _words(state: State) -> tuple[str, ...]:
    return tuple(str(missing) for missing in state.missing)
