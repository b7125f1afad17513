"""Runs that a server carries out: so many at a time, told to whoever listens, written into the history."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Self

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
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.modules import ProofModule

MAX_CONCURRENT_RUNS: Final = 4
MAX_QUEUED_RUNS: Final = 64
RUN_TIMEOUT_S: Final = 900.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunMessage:
    """Something that happened in a run: a name, and a document."""

    name: str
    data: Any


@dataclass(slots=True)
class ActiveRun:
    """A run under way. What happened so far is in `messages`; the last is `run`, with the whole of it."""

    runner: Runner
    history: HistoryWriter
    messages: list[RunMessage] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    @property
    def document(self) -> RunDocument:
        """The run as it stands."""
        return self.history.document

    def handle_event(self, event: RunEvent) -> None:
        """Take in an event of the runner."""
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
        """Add a message, and wake who listens."""
        with self._lock:
            self.messages.append(message)
            listeners = list(self._listeners)
        for wake in listeners:
            wake()

    async def listen(self, begin: int = 0) -> AsyncIterator[tuple[int, RunMessage]]:
        """Yield the messages from number `begin` on, as they come, up to `run`."""
        loop = asyncio.get_running_loop()
        more = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(more.set)

        with self._lock:
            self._listeners.append(wake)
        try:
            place = begin
            while True:
                more.clear()
                while place < len(self.messages):
                    message = self.messages[place]
                    yield place, message
                    if message.name == "run":
                        return
                    place += 1
                if self.messages and self.messages[-1].name == "run":  # who asks for what comes behind it gets it again
                    yield len(self.messages) - 1, self.messages[-1]
                    return
                await more.wait()
        finally:
            with self._lock:
                self._listeners.remove(wake)


class RunManager:
    """Carries out runs against a store, in threads."""

    def __init__(self, store: Store, allowed_targets: AllowedTargets) -> None:
        self._store = store
        self.allowed_targets = allowed_targets
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_RUNS, thread_name_prefix="spanproof-run")
        self._runs: dict[str, ActiveRun] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def find_run(self, run_id: str) -> ActiveRun | None:
        """Find a run that is under way."""
        return self._runs.get(run_id)

    def start_run(
        self, module: ProofModule, variables: Mapping[str, str], origin: str, error_share: Decimal = Decimal(1)
    ) -> ActiveRun:
        """Begin a run. Raises ProblemError where too many wait, StoreError where it cannot be written."""
        if len(self._runs) >= MAX_CONCURRENT_RUNS + MAX_QUEUED_RUNS:
            raise ProblemError(503, "busy", f"{len(self._runs)} runs are under way; try again", {"Retry-After": "5"})
        terms = RunSettings(variables, allowed_targets=self.allowed_targets, error_share=error_share)
        runner = Runner(self._store, lambda event: run.handle_event(event), terms)
        run = ActiveRun(runner, HistoryWriter(self._store, terms.run_id, origin))
        self._runs[terms.run_id] = run
        self._pool.submit(self._execute_run, run, module)
        return run

    def close(self) -> None:
        """End the runs under way, as errors."""
        for run in list(self._runs.values()):
            run.runner.cancel()
        self._pool.shutdown(cancel_futures=False)

    def _execute_run(self, run: ActiveRun, module: ProofModule) -> None:
        late = threading.Timer(RUN_TIMEOUT_S, run.runner.cancel)
        late.daemon = True
        late.start()
        try:
            run.runner.run([(module, proof) for proof in module.proofs])
        except Exception:  # a bug, or a store that is out of order: whoever waits must hear of it
            _log.exception("run %s ended badly", run.document.id)
            try:
                run.history.finish(Outcome.ERROR)
            except Exception:
                _log.exception("run %s could not be written", run.document.id)
        finally:
            late.cancel()
            run.add_message(RunMessage("run", run.document))
            del self._runs[run.document.id]
