"""Execution of one proof: its statements in order, then its claims."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from secrets import token_hex

import duckdb
from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.assertions.explain.likely_cause import LikelyCause
from spanproof.assertions.explain.trace_evidence import TraceView
from spanproof.assertions.findings.verdict import Outcome, find_worst_outcome
from spanproof.assertions.judge.evaluate import Judge
from spanproof.assertions.run.arrival_notifications import ArrivalListener, TraceOwners
from spanproof.assertions.run.consequences import mark_consequences
from spanproof.assertions.run.events import ProofFinished, RequestProgress, RunEvent
from spanproof.assertions.run.judging import ClaimGroup, PlannedClaim, ProofJudge, SettleLimits
from spanproof.assertions.run.proof_requests import RequestSender, SentRequests
from spanproof.assertions.triggers.allowed_targets import AllowedTargets
from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.collector.storage.interface import SpanStore
from spanproof.query_lang.check.constants import Bindings, Constant, MissingValue, evaluate, to_decimal
from spanproof.query_lang.check.declarations import read_declarations
from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.check.secrets import Secrets
from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import locate_offset


class RunSettings(Struct, frozen=True):
    """Settings that the proofs of a run share.

    `variables` are values of ``let`` from outside. `allowed_targets` are the allowed targets of requests (None: any).
    `error_share` is the fraction of its allowed error that each estimate may use. `window_grows`: a gate evaluates the
    proof again, with more traces. `trace_owners` maps trace ids to the proof runs that own them.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: token_hex(8))
    allowed_targets: AllowedTargets | None = None
    error_share: Decimal = Decimal(1)
    window_grows: bool = False
    secrets: Secrets = field(default_factory=Secrets)
    trace_owners: TraceOwners = field(default_factory=dict)


class ProofRun:
    """One execution of a proof."""

    def __init__(
        self,
        store: SpanStore,
        emit: Callable[[RunEvent], None],
        module: ProofModule,
        proof: s.Proof,
        run_settings: RunSettings,
        sent_requests: SentRequests | None = None,
    ) -> None:
        self.store = store
        self.emit = emit
        self.module = module
        self.proof = proof
        self.run_settings = run_settings
        self.notes: list[str] = []
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._cancelled = threading.Event()
        self._is_cleaning_up = False
        self._arrival_listener = ArrivalListener(store, run_settings.trace_owners, self)
        folder = Path(module.file.path).parent
        self._sender = RequestSender(
            store,
            folder,
            run_settings.run_id,
            run_settings.allowed_targets,
            self._pause,
            self._arrival_listener.register_traces,
        )
        # requests that were sent elsewhere, if the proof begins with claims about them
        self.claim_groups: list[ClaimGroup] = [] if sent_requests is None else [ClaimGroup(sent_requests)]
        self.baselines: list[tuple[s.Given, Bindings]] = []

    def cancel(self) -> None:
        """End the proof with an error as soon as possible; called from another thread."""
        self._cancelled.set()
        self._arrival_listener.wake()
        connection = self._connection
        if connection is not None:
            with suppress(duckdb.ConnectionException):  # the connection was closed meanwhile
                connection.interrupt()

    def execute(self) -> Outcome:
        """Run the proof, and its ``after`` in any case. Return the emitted outcome."""
        started = time.perf_counter_ns()
        error: str | None = None
        view: TraceView | None = None
        causes: tuple[LikelyCause, ...] = ()
        variables = {name: Constant(value, "text") for name, value in self.run_settings.variables.items()}
        declared = tuple(read_declarations(self.module.file.items))
        bindings = Bindings(variables, secrets=self.run_settings.secrets, reading=Reading(declared=declared))
        try:
            bindings = self._bind_variables((let for _, let in self.module.definitions.lets), bindings)
            bindings = self._bind_variables(self.module.file.items, bindings)
            self._raise_if_cancelled()
            try:
                self._run_hooks("before", bindings)
                with self._arrival_listener:
                    bindings = self._execute_statements(bindings)
                    view, causes = self._judge_claims(bindings)
            finally:
                self._is_cleaning_up = True
                self._run_hooks("after", bindings)
        except (TriggerFailed, MissingValue, duckdb.Error) as problem:
            error = "the run was cancelled" if self._cancelled.is_set() else self._describe_error(problem)
        judged = mark_consequences(
            [[group.judged[index] for index in sorted(group.judged)] for group in self.claim_groups]
        )
        outcome = Outcome.ERROR if error else find_worst_outcome([each.verdict.outcome for each in judged])
        duration_ns = time.perf_counter_ns() - started
        notes = tuple(self.notes)
        self.emit(
            ProofFinished(
                self.module.file,
                self.proof,
                outcome,
                judged,
                view,
                duration_ns,
                error,
                notes=notes,
                likely_causes=causes,
            )
        )
        return outcome

    def _describe_error(self, problem: Exception) -> str:
        """Return the first line of an error, with its position in the proof if it has one."""
        line = str(problem).splitlines()[0]
        if not isinstance(problem, TriggerFailed) or problem.at is None:
            return line
        position = locate_offset(self.module.file.text, problem.at.start)
        return f"{self.module.file.path}:{position.line}:{position.column}: {line}"

    # ## Statements

    def _bind_variables(self, items: Iterable[object], bindings: Bindings) -> Bindings:
        for item in items:
            if isinstance(item, s.Let) and item.name.text not in self.run_settings.variables:
                if item.value is None:
                    raise MissingValue(f"`{item.name.text}` needs a value from outside: --var {item.name.text}=…")
                bindings = bindings.bind(item, evaluate(item.value, bindings))
        return bindings

    def _execute_statements(self, bindings: Bindings) -> Bindings:
        """Run the statements in order; plan the claims for judging once their spans arrive."""
        for statement in self.proof.statements:
            match statement:
                case s.Let():
                    bindings = self._bind_variables((statement,), bindings)
                case s.When():
                    sent_requests = self._sender.send(statement, bindings, self._report_progress)
                    bindings = sent_requests.bind_response(statement, bindings)
                    self.claim_groups.append(ClaimGroup(sent_requests))
                    self.notes += [sent_requests.note] if sent_requests.note else []
                case s.Given(baseline=True):
                    self.baselines.append((statement, bindings))
                case s.Given():
                    self.claim_groups.append(ClaimGroup(given=statement, given_bindings=bindings))
                case s.Expectation():
                    self.claim_groups[-1].planned.append(PlannedClaim(self.module.file, statement, bindings))
                case s.Apply():
                    self.claim_groups[-1].planned += self._expand_definition(statement, bindings)
        return bindings

    def _expand_definition(self, apply: s.Apply, bindings: Bindings) -> list[PlannedClaim]:
        """Return the claims of a definition with bound parameters; a bare name is the name of a service."""
        definition = self.module.definitions.defines[apply.name]
        inner = bindings
        for parameter, argument in zip(definition.define.parameters, apply.arguments, strict=True):
            if isinstance(argument, s.Name) and argument.text not in bindings.variables:
                value: Constant | None = Constant(argument.text, "text")
            else:
                value = evaluate(argument, bindings)
            inner = replace(inner, variables={**inner.variables, parameter.text: value})
        planned = []
        for statement in definition.define.statements:
            inner = self._bind_variables((statement,), inner)
            if isinstance(statement, s.Expectation):
                planned.append(PlannedClaim(definition.file, statement, inner))
        return planned

    def _report_progress(self, done: int, total: int) -> None:
        self.emit(RequestProgress(self.proof, done, total))

    def _pause(self, seconds: float) -> None:
        """Wait, unless the run is cancelled. Raises TriggerFailed if it is, except during ``after``."""
        if self._is_cleaning_up:
            time.sleep(seconds)
        else:
            self._cancelled.wait(seconds)
            self._raise_if_cancelled()

    def _run_hooks(self, phase: str, bindings: Bindings) -> None:
        """Send the requests that prepare or clean up."""
        hooks = [item for item in self.module.file.items if isinstance(item, s.Hook)]
        hooks += [item for item in self.proof.statements if isinstance(item, s.Hook)]
        if phase == "after":
            hooks.reverse()
        for hook in hooks:
            inner = bindings
            for statement in hook.statements if hook.time == phase else ():
                inner = self._bind_variables((statement,), inner)
                if isinstance(statement, s.When):
                    inner = self._sender.send_hook(statement, inner, phase, self._report_progress)

    # ## Judging

    def _judge_claims(self, bindings: Bindings) -> tuple[TraceView | None, tuple[LikelyCause, ...]]:
        """Judge every claim. Return the trace that shows the first failure, and its likely causes."""
        connection = self._connection = self.store.cursor()
        try:
            proof_judge = ProofJudge(
                self.store,
                Judge(connection, self.run_settings.error_share, window_grows=self.run_settings.window_grows),
                self.proof,
                self.emit,
                self._arrival_listener,
                self._raise_if_cancelled,
                self.notes,
            )
            return proof_judge.judge_groups(self.claim_groups, self.baselines, self._read_settle_limits(bindings))
        finally:
            self._connection = None
            connection.close()

    def _raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise TriggerFailed("the run was cancelled")

    def _read_settle_limits(self, bindings: Bindings) -> SettleLimits:
        for item in self.proof.statements:
            if isinstance(item, s.SettleStatement):
                quiet_ns = int(to_decimal(evaluate(item.quiet, bindings))) if item.quiet is not None else None
                return SettleLimits(int(to_decimal(evaluate(item.limit, bindings))), quiet_ns)
        return SettleLimits()
