"""Carries out proofs, some at a time where there are workers for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TypeAlias

from spanproof.assertions.events import Event, ProofFinished, ProofStarted, RunFinished, Wait, Waiting
from spanproof.assertions.masking import mask_event
from spanproof.assertions.proof_run import ProofRun, Terms
from spanproof.assertions.verdict import Outcome
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.modules import Module

Todo: TypeAlias = "SimpleQueue[tuple[int, Module, s.Proof]]"


@dataclass(slots=True)
class Runner:
    """Runs proofs against a store that a receiver fills; tells `emit` what happens, one event at a time.

    What becomes of proofs is told in their order, whichever ends first. No event holds what is secret.
    """

    store: Store
    emit: Callable[[Event], None]
    terms: Terms = field(default_factory=Terms)
    fail_fast: bool = False
    workers: int = 1
    retries: int = 0  # how often a proof that does not pass is tried again

    _under_way: set[ProofRun] = field(default_factory=set)
    _finished: dict[int, ProofFinished] = field(default_factory=dict)  # by place
    _told: int = 0  # how many of these
    _telling: threading.RLock = field(default_factory=threading.RLock)
    _stopped: bool = False
    _cancelled: bool = False

    def cancel(self) -> None:
        """End the run, from another thread: the proofs under way are errors, the others are not begun."""
        self._cancelled = True
        for run in tuple(self._under_way):
            run.cancel()

    def run(self, proofs: list[tuple[Module, s.Proof]]) -> tuple[Outcome, ...]:
        """Carry out the proofs; return the outcomes of those that were begun, in their order."""
        started = time.perf_counter_ns()
        todo: Todo = SimpleQueue()
        for place, (module, proof) in enumerate(proofs):
            todo.put((place, module, proof))
        self._share_out(todo, max(1, min(self.workers, len(proofs))))
        finished = [self._finished[place] for place in sorted(self._finished)]
        outcomes = tuple(each.outcome for each in finished)
        flaky = sum(each.flaky for each in finished)
        self._tell(RunFinished(outcomes, time.perf_counter_ns() - started, flaky))
        return outcomes

    def _share_out(self, todo: Todo, workers: int) -> None:
        """Let workers carry out proofs, and wait for them.

        Also one alone has a thread of its own: what Ctrl-C raises belongs here, and not into the middle of a query,
        which would take it for an error of its own.
        """
        with ThreadPoolExecutor(workers, thread_name_prefix="spanproof-proof") as pool:
            futures = [pool.submit(self._work, todo) for _ in range(workers)]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:  # Ctrl-C, or a bug in one of them: the others clean up and end
                self.cancel()
                raise

    def _work(self, todo: Todo) -> None:
        """Carry out one proof after the other, until there is none left or the run is to end."""
        while not self._stopped:
            try:
                place, module, proof = todo.get_nowait()
            except Empty:
                return
            finished = self._carry_out(module, proof)
            with self._telling:
                self._finished[place] = finished
                while self._told in self._finished:
                    self._told += 1
                    self._tell(self._finished[self._told - 1])
            if self._cancelled or (self.fail_fast and finished.outcome is not Outcome.PASS):
                self._stopped = True

    def _carry_out(self, module: Module, proof: s.Proof) -> ProofFinished:
        """Carry out a proof, again where it did not pass and may be tried again."""
        self._tell(ProofStarted(module.file, proof))
        tries: list[ProofFinished] = []
        while True:
            finished = self._try(module, proof)
            if finished.outcome is Outcome.PASS or len(tries) == self.retries or self._cancelled:
                return replace(finished, tries=tuple(tries))
            tries.append(finished)

    def _try(self, module: Module, proof: s.Proof) -> ProofFinished:
        begun = time.perf_counter_ns()
        waits: list[Wait] = []
        finished: list[ProofFinished] = []

        def take(event: Event) -> None:
            if isinstance(event, ProofFinished):
                finished.append(event)
                return
            if isinstance(event, Waiting):
                wait = Wait(time.perf_counter_ns() - begun, event.open_claims, event.missing)
                if not waits or (waits[-1].open_claims, waits[-1].missing) != (wait.open_claims, wait.missing):
                    waits.append(wait)
            self._tell(event)

        run = ProofRun(self.store, take, module, proof, self.terms)
        self._under_way.add(run)
        try:
            if self._cancelled:
                run.cancel()
            run.carry_out()
        finally:
            self._under_way.discard(run)
        (event,) = finished
        return replace(event, waits=tuple(waits))

    def _tell(self, event: Event) -> None:
        with self._telling:
            self.emit(mask_event(event, self.terms.secrets))
