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

from spanproof.api.problems import ProblemError
from spanproof.assertions.documents import RunDocument, describe_proof, describe_verdict
from spanproof.assertions.events import Event, Judged, ProofFinished, ProofStarted, RunFinished, Sending, Waiting
from spanproof.assertions.history import HistoryWriter
from spanproof.assertions.proof_run import Terms
from spanproof.assertions.runner import Runner
from spanproof.assertions.triggers.targets import Targets
from spanproof.assertions.verdict import Outcome
from spanproof.collector.store import Store
from spanproof.query_lang.modules import Module

AT_ONCE: Final = 4
MOST_WAITING: Final = 64
LONGEST_S: Final = 900.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """Something that happened in a run: a name, and a document."""

    name: str
    data: Any


@dataclass(slots=True)
class Run:
    """A run under way. What happened so far is in `messages`; the last is `run`, with the whole of it."""

    runner: Runner
    history: HistoryWriter
    messages: list[Message] = field(default_factory=list)
    _changed: threading.Lock = field(default_factory=threading.Lock)
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    @property
    def document(self) -> RunDocument:
        """The run as it stands."""
        return self.history.run

    def take(self, event: Event) -> None:
        """Take in an event of the runner."""
        self.history(event)
        match event:
            case ProofStarted():
                self.tell(Message("proof", {"name": event.proof.name, "path": event.file.path}))
            case Sending():
                self.tell(Message("sending", {"done": event.done, "total": event.total}))
            case Waiting():
                self.tell(Message("waiting", {"missing": event.missing, "open_claims": event.open_claims}))
            case Judged():
                self.tell(Message("verdict", describe_verdict(event)))
            case ProofFinished():
                self.tell(Message("proof_finished", describe_proof(event)))
            case RunFinished():
                pass

    def tell(self, message: Message) -> None:
        """Add a message, and wake who listens."""
        with self._changed:
            self.messages.append(message)
            listeners = list(self._listeners)
        for wake in listeners:
            wake()

    async def listen(self, begin: int = 0) -> AsyncIterator[tuple[int, Message]]:
        """Yield the messages from number `begin` on, as they come, up to `run`."""
        loop = asyncio.get_running_loop()
        more = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(more.set)

        with self._changed:
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
            with self._changed:
                self._listeners.remove(wake)


class RunKeeper:
    """Carries out runs against a store, in threads."""

    def __init__(self, store: Store, targets: Targets) -> None:
        self._store = store
        self.targets = targets
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="spanproof-run")
        self._runs: dict[str, Run] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def find(self, run_id: str) -> Run | None:
        """Find a run that is under way."""
        return self._runs.get(run_id)

    def start(
        self, module: Module, variables: Mapping[str, str], origin: str, error_share: Decimal = Decimal(1)
    ) -> Run:
        """Begin a run. Raises ProblemError where too many wait, StoreError where it cannot be written."""
        if len(self._runs) >= AT_ONCE + MOST_WAITING:
            raise ProblemError(503, "busy", f"{len(self._runs)} runs are under way; try again", {"Retry-After": "5"})
        terms = Terms(variables, targets=self.targets, error_share=error_share)
        runner = Runner(self._store, lambda event: run.take(event), terms)
        run = Run(runner, HistoryWriter(self._store, terms.run_id, origin))
        self._runs[terms.run_id] = run
        self._pool.submit(self._carry_out, run, module)
        return run

    def close(self) -> None:
        """End the runs under way, as errors."""
        for run in list(self._runs.values()):
            run.runner.cancel()
        self._pool.shutdown(cancel_futures=False)

    def _carry_out(self, run: Run, module: Module) -> None:
        late = threading.Timer(LONGEST_S, run.runner.cancel)
        late.daemon = True
        late.start()
        try:
            run.runner.run([(module, proof) for proof in module.proofs])
        except Exception:  # a bug, or a store that is out of order: whoever waits must hear of it
            _log.exception("run %s ended badly", run.document.id)
            try:
                run.history.end(Outcome.ERROR)
            except Exception:
                _log.exception("run %s could not be written", run.document.id)
        finally:
            late.cancel()
            run.tell(Message("run", run.document))
            del self._runs[run.document.id]
