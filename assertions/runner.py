"""Carries out proofs: sends their requests, waits for the spans, has the claims judged."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import duckdb

from spanproof.assertions.evaluate import Judge, Selected
from spanproof.assertions.events import Event, Judged, ProofFinished, ProofStarted, RunFinished, Waiting
from spanproof.assertions.evidence import TraceView, view_trace
from spanproof.assertions.triggers.http import TraceContext, TriggerFailed, send
from spanproof.assertions.verdict import Outcome, worst
from spanproof.collector.calls import derive
from spanproof.collector.completeness import State, look
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, Constant, NoValue, evaluate, number
from spanproof.query_lang.parse import ProofFile, parse_file

SETTLE_NS: Final = 15_000_000_000
PICTURE_NS: Final = 500_000_000  # how long a failure waits, at most, for the rest of the trace that shows it


@dataclass(frozen=True, slots=True)
class Selection:
    """Which proofs to run: a word in the name (``keyword``) and any of the ``tags``."""

    keyword: str | None = None
    tags: frozenset[str] = frozenset()

    def takes(self, proof: s.Proof) -> bool:
        """Tell whether a proof is selected."""
        if self.keyword is not None and self.keyword.lower() not in proof.name.lower():
            return False
        return not self.tags or bool(self.tags & set(proof.tags))


def find_files(paths: list[Path]) -> list[Path]:
    """Return the proof files that `paths` name, those in folders in order. Raises FileNotFoundError."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(sorted(path.rglob("*.proof")))
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return list(found)


def read_file(path: Path) -> ProofFile:
    """Read and parse a proof file. Raises OSError, UnicodeDecodeError."""
    here = Path.cwd()
    shown = path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path
    return parse_file(path.read_text(encoding="utf-8-sig"), str(shown))


@dataclass(slots=True)
class Runner:
    """Runs proofs against a store that a receiver fills; tells `emit` what happens."""

    store: Store
    emit: Callable[[Event], None]
    variables: Mapping[str, str] = field(default_factory=dict)
    fail_fast: bool = False
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def run(self, proofs: list[tuple[ProofFile, s.Proof]]) -> tuple[Outcome, ...]:
        """Carry out the proofs one after the other; return their outcomes."""
        started = time.perf_counter_ns()
        outcomes: list[Outcome] = []
        for file, proof in proofs:
            self.emit(ProofStarted(file, proof))
            outcome = _ProofRun(self, file, proof).carry_out()
            outcomes.append(outcome)
            if self.fail_fast and outcome is not Outcome.PASS:
                break
        self.emit(RunFinished(tuple(outcomes), time.perf_counter_ns() - started))
        return tuple(outcomes)


class _ProofRun:
    """One proof being carried out."""

    def __init__(self, runner: Runner, file: ProofFile, proof: s.Proof) -> None:
        self.runner = runner
        self.file = file
        self.proof = proof
        self.judged: dict[int, Judged] = {}  # by place among the expectations
        self.expectations = [item for item in proof.statements if isinstance(item, s.Expectation)]
        self.context = TraceContext()

    def carry_out(self) -> Outcome:
        started = time.perf_counter_ns()
        error: str | None = None
        trace_id: str | None = None
        view: TraceView | None = None
        try:
            bindings = self._bind(self.file.items, Bindings(self._given_variables()))
            bindings = self._send(bindings)
            trace_id = self.context.trace_id
            connection = self.runner.store.cursor()
            try:
                self._judge_as_spans_arrive(connection, bindings)
                view = self._view(connection)
            finally:
                connection.close()
        except (TriggerFailed, NoValue, duckdb.Error) as problem:
            error = str(problem).splitlines()[0]
        judged = tuple(self.judged[number] for number in sorted(self.judged))
        outcome = Outcome.ERROR if error else worst([each.verdict.outcome for each in judged])
        self.runner.emit(
            ProofFinished(
                self.file, self.proof, outcome, judged, trace_id, view, time.perf_counter_ns() - started, error
            )
        )
        return outcome

    def _given_variables(self) -> dict[str, Constant | None]:
        return {name: Constant(value, "text") for name, value in self.runner.variables.items()}

    def _bind(self, items: tuple[s.Item, ...] | tuple[s.Statement, ...], bindings: Bindings) -> Bindings:
        for item in items:
            if isinstance(item, s.Let) and item.name.text not in self.runner.variables:
                value = evaluate(item.value, bindings)
                bindings = replace(bindings, variables={**bindings.variables, item.name.text: value})
        return bindings

    def _send(self, bindings: Bindings) -> Bindings:
        """Carry out the statements up to the request and after it; claims are left for later."""
        statements = self.proof.statements
        place = next(number for number, item in enumerate(statements) if isinstance(item, s.When))
        when = statements[place]
        assert isinstance(when, s.When)  # noqa: S101 (found as one)
        bindings = self._bind(statements[:place], bindings)
        self._expect_trace()
        response = send(when, bindings, self.context, self.runner.run_id)
        names = [None, *([when.name.text] if when.name else [])]
        bindings = replace(bindings, responses=dict.fromkeys(names, response))
        return self._bind(statements[place:], bindings)

    def _expect_trace(self) -> None:
        """Tell the store that our own span, the parent of the trace's root, will never come."""
        with self.runner.store.lock:
            connection = self.runner.store.cursor()
            connection.execute(
                "INSERT INTO triggers VALUES ($trace::UUID, $span)",
                {"trace": self.context.trace_id, "span": int(self.context.span_id, 16)},
            )
            connection.close()

    def _judge_as_spans_arrive(self, connection: duckdb.DuckDBPyConnection, bindings: Bindings) -> None:
        """Judge on every arrival until each verdict is final, the trace is settled, or time is up."""
        judge = Judge(connection)
        limit_ns, quiet_ns = self._settle(bindings)
        deadline = time.monotonic_ns() + limit_ns
        arrived = threading.Event()
        unsubscribe = self.runner.store.subscribe(lambda _: arrived.set())
        try:
            while True:
                arrived.clear()
                derive(self.runner.store)
                state = look(connection, self.context.trace_id)
                until_ns = state.quiet_until_ns(quiet_ns)
                settled = until_ns is not None and time.time_ns() >= until_ns
                late = time.monotonic_ns() >= deadline
                self._judge(judge, bindings, state, settled=settled, live=not (settled or late))
                open_claims = len(self.expectations) - len(self.judged)
                if not open_claims:
                    if settled or late or not self._failed():
                        return
                    deadline = min(deadline, time.monotonic_ns() + PICTURE_NS)
                self.runner.emit(Waiting(self.proof, _words(state), open_claims))
                wait_ns = deadline - time.monotonic_ns()
                if until_ns is not None:
                    wait_ns = min(wait_ns, until_ns - time.time_ns())
                arrived.wait(max(wait_ns, 0) / 1e9)
        finally:
            unsubscribe()

    def _judge(self, judge: Judge, bindings: Bindings, state: State, *, settled: bool, live: bool) -> None:
        """Judge the claims that are still open; keep what is final, or all when nothing more is waited for."""
        judge.select(Selected(dict.fromkeys(state.traces, settled), live, _words(state)))
        for place, expectation in enumerate(self.expectations):
            if place in self.judged:
                continue
            verdict = judge.judge(expectation, self.file.text, bindings)
            if verdict.final or not live:
                self.judged[place] = Judged(expectation, replace(verdict, final=True))
                self.runner.emit(self.judged[place])

    def _failed(self) -> bool:
        return any(each.verdict.outcome is not Outcome.PASS for each in self.judged.values())

    def _settle(self, bindings: Bindings) -> tuple[int, int | None]:
        """Return how long to wait at most, and how long nothing may arrive (None: as the trace demands)."""
        for item in self.proof.statements:
            if isinstance(item, s.Settle):
                limit = evaluate(item.limit, bindings)
                quiet = evaluate(item.quiet, bindings) if item.quiet is not None else None
                return int(number(limit)) if limit else SETTLE_NS, int(number(quiet)) if quiet else None
        return SETTLE_NS, None

    def _view(self, connection: duckdb.DuckDBPyConnection) -> TraceView | None:
        """Lay out the trace that shows what is wrong, its witnesses marked."""
        if not self._failed():
            return None
        wrong = [each.verdict for each in self.judged.values() if each.verdict.outcome is not Outcome.PASS]
        marked = {witness.span_id for verdict in wrong for witness in verdict.witnesses}
        return view_trace(connection, self.context.trace_id, marked=marked)


def _words(state: State) -> tuple[str, ...]:
    return tuple(str(missing) for missing in state.missing)
