"""One proof being carried out: its requests sent, its spans waited for, its claims judged."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import duckdb

from spanproof.assertions.consequences import mark_consequences
from spanproof.assertions.evaluate import Judge
from spanproof.assertions.events import Event, Judged, ProofFinished, Waiting
from spanproof.assertions.evidence import TraceView, name_choice, view_trace
from spanproof.assertions.masking import learn_headers
from spanproof.assertions.selected import Selected
from spanproof.assertions.triggers.command import run
from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.http import HttpResponse, send
from spanproof.assertions.triggers.targets import Targets
from spanproof.assertions.verdict import Outcome, Verdict, worst
from spanproof.collector.calls import derive
from spanproof.collector.completeness import State, look
from spanproof.collector.flushes import find_flushes
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, Constant, NoValue, ResponseParts, evaluate, fill, number
from spanproof.query_lang.modules import Module
from spanproof.query_lang.parse import ProofFile
from spanproof.query_lang.secrecy import Secrets

TRACE_ID: Final = re.compile("[0-9a-fA-F]{32}")
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
    """Claims about the same traces: those of one request, or of one ``given``."""

    context: TraceContext | None = None
    given: s.Given | None = None
    given_bindings: Bindings = field(default_factory=Bindings)
    planned: list[Planned] = field(default_factory=list)
    judged: dict[int, Judged] = field(default_factory=dict)  # by place in `planned`

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
    ) -> None:
        self.store = store
        self.emit = emit
        self.module = module
        self.proof = proof
        self.variables = variables
        self.run_id = run_id
        self.targets = targets
        self.error_share = error_share
        self.secrets = Secrets() if secrets is None else secrets
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._cancelled = False
        self._woken = threading.Event()  # by spans that arrive, or by `cancel`
        self.segments: list[Segment] = []
        self.baselines: list[tuple[s.Given, Bindings]] = []

    def cancel(self) -> None:
        """End it as an error, from another thread, as soon as may be."""
        self._cancelled = True
        self._woken.set()
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
                bindings = self._walk(bindings)
                view = self._judge_all(bindings)
            finally:
                self._run_hooks("after", bindings)
        except (TriggerFailed, NoValue, duckdb.Error) as problem:
            error = "the run was cancelled" if self._cancelled else str(problem).splitlines()[0]
        judged = mark_consequences([[each.judged[place] for place in sorted(each.judged)] for each in self.segments])
        outcome = Outcome.ERROR if error else worst([each.verdict.outcome for each in judged])
        took = time.perf_counter_ns() - started
        self.emit(ProofFinished(self.module.file, self.proof, outcome, judged, view, took, error))
        return outcome

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
                    context = self._context(statement, bindings)
                    bindings = self._send(statement, bindings, context)
                    self.segments.append(Segment(context))
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

    def _context(self, when: s.When, bindings: Bindings) -> TraceContext:
        """Return the trace that a ``when`` starts, or names."""
        if when.kind == "trace":
            trace_id = _fill(when, bindings)
            if not TRACE_ID.fullmatch(trace_id):
                raise NoValue(f"`{trace_id}` is not a trace id: 32 hexadecimal digits")
            return TraceContext(trace_id.lower())
        context = TraceContext()
        self._expect_trace(context)
        return context

    def _send(self, when: s.When, bindings: Bindings, context: TraceContext) -> Bindings:
        if when.kind == "trace":
            return bindings
        learn_headers(when, bindings)
        response: ResponseParts = (
            run(_fill(when, bindings), context, self.run_id)
            if when.kind == "run"
            else send(when, bindings, context, self.run_id, self.targets)
        )
        names = [None, *([when.name.text] if when.name else [])]
        return replace(bindings, responses={**bindings.responses, **dict.fromkeys(names, response)})

    def _expect_trace(self, context: TraceContext) -> None:
        """Tell the store that our own span, the parent of the trace's root, will never come."""
        with self.store.lock:
            connection = self.store.cursor()
            connection.execute(
                "INSERT INTO triggers VALUES ($trace::UUID, $span)",
                {"trace": context.trace_id, "span": int(context.span_id, 16)},
            )
            connection.close()

    def _run_hooks(self, time_: str, bindings: Bindings) -> None:
        """Send the requests that prepare or clean up; an answer of 400 or above is a failure."""
        hooks = [item for item in self.module.file.items if isinstance(item, s.Hook)]
        hooks += [item for item in self.proof.statements if isinstance(item, s.Hook)]
        if time_ == "after":
            hooks.reverse()
        for hook in hooks:
            inner = bindings
            for statement in hook.statements if hook.time == time_ else ():
                inner = self._bind((statement,), inner)
                if isinstance(statement, s.When):
                    inner = self._send(statement, inner, TraceContext())
                    status = int(number(inner.responses[None].read("status", ())))
                    if status >= 400 or (statement.kind == "run" and status):
                        raise TriggerFailed(f"`{time_}` was answered with {status}")

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
                elif segment.context is not None:
                    self._judge_as_spans_arrive(judge, segment, segment.context.trace_id, limit_ns, quiet_ns)
                view = view or self._view(connection, segment)
            self._stop_if_cancelled()
            return view
        finally:
            self._connection = None
            connection.close()

    def _stop_if_cancelled(self) -> None:
        if self._cancelled:
            raise TriggerFailed("the run was cancelled")

    def _judge_as_spans_arrive(
        self, judge: Judge, segment: Segment, trace_id: str, limit_ns: int, quiet_ns: int | None
    ) -> None:
        """Judge on every arrival until each verdict is final, the trace is settled, or time is up."""
        deadline = time.monotonic_ns() + limit_ns
        unsubscribe = self.store.subscribe(lambda _: self._woken.set())
        try:
            while True:
                self._woken.clear()
                self._stop_if_cancelled()
                derive(self.store)
                state = look(judge.connection, trace_id)
                until_ns = state.quiet_until_ns(quiet_ns)
                settled = until_ns is not None and time.time_ns() >= until_ns
                late = time.monotonic_ns() >= deadline
                live = not (settled or late)
                awaited = find_flushes(judge.connection, state) if late and not settled else _words(state)
                judge.select(Selected(dict.fromkeys(state.traces, settled), live, awaited))
                open_claims = self._judge(judge, segment, live=live)
                if not open_claims:
                    if not live or not segment.failed:
                        return
                    deadline = min(deadline, time.monotonic_ns() + PICTURE_NS)
                self.emit(Waiting(self.proof, _words(state), open_claims))
                wait_ns = deadline - time.monotonic_ns()
                if until_ns is not None:
                    wait_ns = min(wait_ns, until_ns - time.time_ns())
                self._woken.wait(max(wait_ns, 0) / 1e9)
        finally:
            unsubscribe()

    def _judge(self, judge: Judge, segment: Segment, *, live: bool) -> int:
        """Judge the claims still open; keep what is final, or all when nothing more is waited for. Count the rest."""
        for place, planned in enumerate(segment.planned):
            if place in segment.judged:
                continue
            self._stop_if_cancelled()
            verdict = self._verdict(judge, planned)
            if verdict.final or not live:
                segment.judged[place] = Judged(planned.file, planned.expectation, replace(verdict, final=True))
                self.emit(segment.judged[place])
        return len(segment.planned) - len(segment.judged)

    def _verdict(self, judge: Judge, planned: Planned) -> Verdict:
        claim = planned.expectation.claim
        response = planned.bindings.responses.get(None)
        if isinstance(claim, s.Contract) and isinstance(response, HttpResponse):
            from spanproof.assertions.contracts import judge_contract  # heavy, and seldom needed

            return judge_contract(claim, response, Path(planned.file.path).parent)
        return judge.judge(planned.expectation, planned.file.text, planned.bindings)

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
        if segment.context is not None:
            trace_id = segment.context.trace_id
        elif witnesses:
            trace_id = witnesses[0].trace_id
        else:
            return None
        view = view_trace(connection, trace_id, marked={witness.span_id for witness in witnesses})
        if view is None or segment.context is not None:
            return view
        shown = next(each for each in segment.judged.values() if witnesses[0] in each.verdict.witnesses)
        return replace(view, choice=name_choice(shown.expectation))


def _fill(when: s.When, bindings: Bindings) -> str:
    """Return the text after ``run`` or ``trace``."""
    (target,) = when.targets
    assert isinstance(target, s.Text)  # noqa: S101 (the grammar's own)
    return fill(target, bindings)


def _words(state: State) -> tuple[str, ...]:
    return tuple(str(missing) for missing in state.missing)
