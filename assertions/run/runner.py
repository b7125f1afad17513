"""Runner of several proofs, in parallel if there are several workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.events import ProofFinished, ProofStarted, RunEvent, RunFinished, Wait, WaitingForSpans
from spanproof.assertions.run.proof_run import ProofRun, RunSettings
from spanproof.assertions.run.secret_masking import mask_event
from spanproof.collector.storage.interface import SpanStore
from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s

ProofQueue: TypeAlias = "SimpleQueue[tuple[int, ProofModule, s.Proof]]"


class Runner(Struct):
    """Runner of proofs against a store that a receiver fills; passes events to `emit`, one at a time.

    It reports finished proofs in their given order. Events contain no secrets.
    """

    store: SpanStore
    emit: Callable[[RunEvent], None]
    run_settings: RunSettings = field(default_factory=RunSettings)
    fail_fast: bool = False
    workers: int = 1
    retries: int = 0  # number of further tries of a proof that does not pass

    _active_runs: set[ProofRun] = field(default_factory=set)
    _finished: dict[int, ProofFinished] = field(default_factory=dict)  # by index
    _reported_count: int = 0  # number of finished proofs that were reported
    _report_lock: threading.RLock = field(default_factory=threading.RLock)
    _stopped: bool = False
    _cancelled: bool = False

    def cancel(self) -> None:
        """End the run; called from another thread. Running proofs end with an error, the others do not start."""
        self._cancelled = True
        for run in tuple(self._active_runs):
            run.cancel()

    def run(self, proofs: list[tuple[ProofModule, s.Proof]]) -> tuple[Outcome, ...]:
        """Run the proofs. Return the outcomes of the started ones, in their given order."""
        started = time.perf_counter_ns()
        queue: ProofQueue = SimpleQueue()
        for index, (module, proof) in enumerate(proofs):
            queue.put((index, module, proof))
        self._run_workers(queue, max(1, min(self.workers, len(proofs))))
        finished = [self._finished[index] for index in sorted(self._finished)]
        outcomes = tuple(each.outcome for each in finished)
        flaky = sum(each.flaky for each in finished)
        self._report(RunFinished(outcomes, time.perf_counter_ns() - started, flaky))
        return outcomes

    def _run_workers(self, queue: ProofQueue, workers: int) -> None:
        """Run the proofs of a queue in worker threads, and wait for them.

        A single worker also has its own thread: KeyboardInterrupt must be raised here, not inside a query, which would
        report it as a query error.
        """
        with ThreadPoolExecutor(workers, thread_name_prefix="spanproof-proof") as pool:
            futures = [pool.submit(self._run_worker, queue) for _ in range(workers)]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:  # Ctrl-C, or a bug in a worker: the other workers clean up and end
                self.cancel()
                raise

    def _run_worker(self, queue: ProofQueue) -> None:
        """Run proofs until the queue is empty or the run ends."""
        while not self._stopped:
            try:
                index, module, proof = queue.get_nowait()
            except Empty:
                return
            finished = self._run_with_retries(module, proof)
            with self._report_lock:
                self._finished[index] = finished
                while self._reported_count in self._finished:
                    self._reported_count += 1
                    self._report(self._finished[self._reported_count - 1])
            if self._cancelled or (self.fail_fast and finished.outcome is not Outcome.PASS):
                self._stopped = True

    def _run_with_retries(self, module: ProofModule, proof: s.Proof) -> ProofFinished:
        """Run a proof; run it again while it does not pass and retries are left."""
        self._report(ProofStarted(module.file, proof))
        tries: list[ProofFinished] = []
        while True:
            finished = self._run_once(module, proof)
            if finished.outcome is Outcome.PASS or len(tries) == self.retries or self._cancelled:
                return replace(finished, tries=tuple(tries))
            tries.append(finished)

    def _run_once(self, module: ProofModule, proof: s.Proof) -> ProofFinished:
        started_ns = time.perf_counter_ns()
        waits: list[Wait] = []
        finished: list[ProofFinished] = []

        def collect(event: RunEvent) -> None:
            if isinstance(event, ProofFinished):
                finished.append(event)
                return
            if isinstance(event, WaitingForSpans):
                wait = Wait(time.perf_counter_ns() - started_ns, event.open_claims, event.missing)
                if not waits or (waits[-1].open_claims, waits[-1].missing) != (wait.open_claims, wait.missing):
                    waits.append(wait)
            self._report(event)

        run = ProofRun(self.store, collect, module, proof, self.run_settings)
        self._active_runs.add(run)
        try:
            if self._cancelled:
                run.cancel()
            run.execute()
        finally:
            self._active_runs.discard(run)
        (event,) = finished
        return replace(event, waits=tuple(waits))

    def _report(self, event: RunEvent) -> None:
        with self._report_lock:
            self.emit(mask_event(event, self.run_settings.secrets))
