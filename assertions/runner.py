"""Carries out proofs one after the other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from spanproof.assertions.events import Event, ProofStarted, RunFinished
from spanproof.assertions.proof_run import ProofRun
from spanproof.assertions.triggers.targets import Targets
from spanproof.assertions.verdict import Outcome
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.modules import Module


@dataclass(slots=True)
class Runner:
    """Runs proofs against a store that a receiver fills; tells `emit` what happens."""

    store: Store
    emit: Callable[[Event], None]
    variables: Mapping[str, str] = field(default_factory=dict)
    fail_fast: bool = False
    targets: Targets | None = None  # where requests may go; None for anywhere
    error_share: Decimal = Decimal(1)  # of the error that estimates allow themselves
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    _current: ProofRun | None = None
    _cancelled: bool = False

    def cancel(self) -> None:
        """End the run, from another thread: the proof under way is an error, the others are not begun."""
        self._cancelled = True
        if self._current is not None:
            self._current.cancel()

    def run(self, proofs: list[tuple[Module, s.Proof]]) -> tuple[Outcome, ...]:
        """Carry out the proofs; return their outcomes."""
        started = time.perf_counter_ns()
        outcomes: list[Outcome] = []
        for module, proof in proofs:
            self.emit(ProofStarted(module.file, proof))
            self._current = ProofRun(
                self.store, self.emit, module, proof, self.variables, self.run_id, self.targets, self.error_share
            )
            if self._cancelled:
                self._current.cancel()
            outcome = self._current.carry_out()
            outcomes.append(outcome)
            if self._cancelled:
                break
            if self.fail_fast and outcome is not Outcome.PASS:
                break
        self.emit(RunFinished(tuple(outcomes), time.perf_counter_ns() - started))
        return tuple(outcomes)
