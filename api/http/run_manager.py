"""Runs on a server: up to `MAX_CONCURRENT_RUNS` in parallel, streamed to listeners, stored in the history."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Final, Self

from msgspec import Struct, field

from spanproof.api.http.problems import ProblemError
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.documents import RunDocument, describe_proof, describe_verdict
from spanproof.assertions.reports.history import HistoryWriter
from spanproof.assertions.run.events import (
    ClaimJudged,
    ProofFinished,
    ProofStarted,
    RequestProgress,
    RunEvent,
    RunFinished,
    WaitingForSpans,
)
from spanproof.assertions.run.proof_run import RunSettings
from spanproof.assertions.run.runner import Runner
from spanproof.assertions.triggers.allowed_targets import AllowedTargets
from spanproof.collector.storage.interface import SpanStore
from spanproof.query_lang.load.modules import ProofModule

MAX_CONCURRENT_RUNS: Final = 4
MAX_QUEUED_RUNS: Final = 64
RUN_TIMEOUT_S: Final = 900.0

_log = logging.getLogger(__name__)


class RunMessage(Struct, frozen=True):
    """An event of a run: its name and a document."""

    name: str
    data: Any


class ActiveRun(Struct):
    """An active run. `messages` has its events so far; the last one is `run`, with the complete run."""

    runner: Runner
    history: HistoryWriter
    messages: list[RunMessage] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    @property
    def document(self) -> RunDocument:
        """The run so far."""
        return self.history.document

    def handle_event(self, event: RunEvent) -> None:
        """Store an event of the runner and send it to the listeners."""
        self.history(event)
        match event:
            case ProofStarted():
                self.add_message(RunMessage("proof", {"name": event.proof.name, "path": event.file.path}))
            case RequestProgress():
                self.add_message(RunMessage("sending", {"done": event.done, "total": event.total}))
            case WaitingForSpans():
                self.add_message(RunMessage("waiting", {"missing": event.missing, "open_claims": event.open_claims}))
            case ClaimJudged():
                self.add_message(RunMessage("verdict", describe_verdict(event)))
            case ProofFinished():
                self.add_message(RunMessage("proof_finished", describe_proof(event)))
            case RunFinished():
                pass

    def add_message(self, message: RunMessage) -> None:
        """Add a message and wake the listeners."""
        with self._lock:
            self.messages.append(message)
            listeners = list(self._listeners)
        for wake in listeners:
            wake()

    async def listen(self, begin: int = 0) -> AsyncIterator[tuple[int, RunMessage]]:
        """Yield the messages from index `begin` on, as they arrive, up to `run`."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(arrived.set)

        with self._lock:
            self._listeners.append(wake)
        try:
            index = begin
            while True:
                arrived.clear()
                while index < len(self.messages):
                    message = self.messages[index]
                    yield index, message
                    if message.name == "run":
                        return
                    index += 1
                if self.messages and self.messages[-1].name == "run":  # repeated if `begin` is behind it
                    yield len(self.messages) - 1, self.messages[-1]
                    return
                await arrived.wait()
        finally:
            with self._lock:
                self._listeners.remove(wake)


class RunManager:
    """Executes runs against a store, in threads."""

    def __init__(self, store: SpanStore, allowed_targets: AllowedTargets) -> None:
        self._store = store
        self.allowed_targets = allowed_targets
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_RUNS, thread_name_prefix="spanproof-run")
        self._runs: dict[str, ActiveRun] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def find_run(self, run_id: str) -> ActiveRun | None:
        """Return an active run, or None."""
        return self._runs.get(run_id)

    def start_run(
        self,
        module: ProofModule,
        variables: Mapping[str, str],
        origin: str,
        error_share: Decimal = Decimal(1),
        *,
        window_grows: bool = False,
    ) -> ActiveRun:
        """Start a run. Raises ProblemError if too many are waiting, StoreError if it cannot be written."""
        if len(self._runs) >= MAX_CONCURRENT_RUNS + MAX_QUEUED_RUNS:
            raise ProblemError(503, "busy", f"{len(self._runs)} runs are active; try again", {"Retry-After": "5"})
        settings = RunSettings(
            variables, allowed_targets=self.allowed_targets, error_share=error_share, window_grows=window_grows
        )
        runner = Runner(self._store, lambda event: run.handle_event(event), settings)
        run = ActiveRun(runner, HistoryWriter(self._store, settings.run_id, origin))
        self._runs[settings.run_id] = run
        self._pool.submit(self._execute_run, run, module)
        return run

    def close(self) -> None:
        """End the active runs, as errors."""
        for run in list(self._runs.values()):
            run.runner.cancel()
        self._pool.shutdown(cancel_futures=False)

    def _execute_run(self, run: ActiveRun, module: ProofModule) -> None:
        timeout = threading.Timer(RUN_TIMEOUT_S, run.runner.cancel)
        timeout.daemon = True
        timeout.start()
        try:
            run.runner.run([(module, proof) for proof in module.proofs])
        except Exception:  # a bug, or an unusable store: waiting clients must get the result
            _log.exception("run %s failed", run.document.id)
            try:
                run.history.finish(Outcome.ERROR)
            except Exception:
                _log.exception("run %s could not be written", run.document.id)
        finally:
            timeout.cancel()
            run.add_message(RunMessage("run", run.document))
            del self._runs[run.document.id]
