"""One proof being carried out: its statements one after the other, then its claims judged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from secrets import token_hex

import duckdb

from spanproof.assertions.arrivals import Arrivals, Begun
from spanproof.assertions.consequences import mark_consequences
from spanproof.assertions.evaluate import Judge
from spanproof.assertions.events import Event, ProofFinished, Sending
from spanproof.assertions.evidence import TraceView
from spanproof.assertions.judging import Judging, Planned, Segment, Settle
from spanproof.assertions.requests import Sender, Sent
from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.assertions.triggers.targets import Targets
from spanproof.assertions.verdict import Outcome, worst
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, Constant, NoValue, evaluate, number
from spanproof.query_lang.diagnostics import locate
from spanproof.query_lang.modules import Module
from spanproof.query_lang.secrecy import Secrets


@dataclass(frozen=True, slots=True)
class Terms:
    """What the proofs of a run have in common.

    `variables` are values of ``let`` from outside, `targets` where requests may go (None: anywhere), `error_share` what
    estimates may use up of the error that they allow themselves. `begun` says who began which trace.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: token_hex(8))
    targets: Targets | None = None
    error_share: Decimal = Decimal(1)
    secrets: Secrets = field(default_factory=Secrets)
    begun: Begun = field(default_factory=dict)


class ProofRun:
    """Carries out one proof."""

    def __init__(
        self,
        store: Store,
        emit: Callable[[Event], None],
        module: Module,
        proof: s.Proof,
        terms: Terms,
        sent: Sent | None = None,
    ) -> None:
        self.store = store
        self.emit = emit
        self.module = module
        self.proof = proof
        self.terms = terms
        self.notes: list[str] = []
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._cancelled = threading.Event()
        self._cleans_up = False
        self._arrivals = Arrivals(store, terms.begun, self)
        folder = Path(module.file.path).parent
        self._sender = Sender(store, folder, terms.run_id, terms.targets, self._pause, self._arrivals.begin)
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
        variables = {name: Constant(value, "text") for name, value in self.terms.variables.items()}
        bindings = Bindings(variables, secrets=self.terms.secrets)
        try:
            bindings = self._bind((let for _, let in self.module.library.lets), bindings)
            bindings = self._bind(self.module.file.items, bindings)
            self._stop_if_cancelled()
            try:
                self._run_hooks("before", bindings)
                with self._arrivals:
                    bindings = self._walk(bindings)
                    view = self._judge(bindings)
            finally:
                self._cleans_up = True
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
            if isinstance(item, s.Let) and item.name.text not in self.terms.variables:
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
        """Wait, unless the run is cancelled. Raises TriggerFailed if it is, but not for what cleans up."""
        if self._cleans_up:
            time.sleep(seconds)
        else:
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

    def _judge(self, bindings: Bindings) -> TraceView | None:
        """Judge every claim; return the trace that shows the first failure."""
        connection = self._connection = self.store.cursor()
        try:
            judging = Judging(
                self.store,
                Judge(connection, self.terms.error_share),
                self.proof,
                self.emit,
                self._arrivals,
                self._stop_if_cancelled,
                self.notes,
            )
            return judging.judge(self.segments, self.baselines, self._settle(bindings))
        finally:
            self._connection = None
            connection.close()

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise TriggerFailed("the run was cancelled")

    def _settle(self, bindings: Bindings) -> Settle:
        for item in self.proof.statements:
            if isinstance(item, s.Settle):
                quiet_ns = int(number(evaluate(item.quiet, bindings))) if item.quiet is not None else None
                return Settle(int(number(evaluate(item.limit, bindings))), quiet_ns)
        return Settle()
