"""From request to commit: a bounded queue and one writer, which commits once for all that is waiting."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spanproof.collector.decode import Accepted, Decoder, Undecodable
from spanproof.collector.redaction import NOTHING_REDACTED, Redaction
from spanproof.collector.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_QUEUED_BYTES = 256 * 2**20
MAX_QUEUED_REQUESTS = 4096
# What a refused sender is told to wait. The Python exporter drops a batch that it is asked to hold for longer.
RETRY_AFTER_S = 1

# One commit for more gains nothing more, and delays the first answer.
_BATCH_BYTES = 32 * 2**20
_log = logging.getLogger(__name__)


class Backpressure(Exception):
    """There is no room for this request now; the sender may try again after `RETRY_AFTER_S`."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    body: bytes
    answer: Future[Accepted]


class Ingest:
    """Takes requests in and answers each once its spans are committed."""

    def __init__(
        self,
        store: Store,
        *,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        max_queued_requests: int = MAX_QUEUED_REQUESTS,
        redaction: Redaction = NOTHING_REDACTED,
    ) -> None:
        self._store = store
        self._decoder = Decoder(redaction)
        self._max_bytes = max_queued_bytes
        self._max_requests = max_queued_requests
        self._queue: deque[_Waiting] = deque()
        # what is not answered yet, queued or being written
        self._pending_bytes = 0
        self._pending_requests = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._writer = threading.Thread(target=self._write_until_stopped, name="spanproof-writer", daemon=True)
        self._writer.start()

    def submit(self, body: bytes) -> Future[Accepted]:
        """Queue a serialized `ExportTraceServiceRequest`.

        The answer comes after the commit; it is `Undecodable` or `StoreError` where there is nothing to commit.
        Raises `Backpressure` where the queue is full.
        """
        answer: Future[Accepted] = Future()
        answer.set_running_or_notify_cancel()  # a sender that has gone does not take its spans back
        with self._changed:
            if self._stopping:
                raise Backpressure("the collector is shutting down")
            # a request larger than the whole queue is let in when it is alone
            if self._pending_requests and (
                self._pending_requests >= self._max_requests or self._pending_bytes + len(body) > self._max_bytes
            ):
                raise Backpressure(f"the collector is busy: {self._pending_requests} requests are waiting")
            self._queue.append(_Waiting(body, answer))
            self._pending_requests += 1
            self._pending_bytes += len(body)
            self._changed.notify_all()
        return answer

    def drain_and_stop(self, timeout: float | None = None) -> bool:
        """Take nothing more in, write what is queued, stop; False where that took longer than `timeout` seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._writer.join(timeout)
        return not self._writer.is_alive()

    def _write_until_stopped(self) -> None:
        while batch := self._take_batch():
            try:
                outcomes = self._write(batch)
            except Exception as error:  # a bug must cost this batch, not the collector
                _log.exception("a batch of %d requests could not be written", len(batch))
                outcomes = [StoreError(f"the spans could not be stored: {error}")] * len(batch)
            with self._changed:
                self._pending_requests -= len(batch)
                self._pending_bytes -= sum(len(waiting.body) for waiting in batch)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Accepted):
                    waiting.answer.set_result(outcome)
                else:
                    waiting.answer.set_exception(outcome)

    def _take_batch(self) -> list[_Waiting]:
        """Wait for requests and take those that one commit should hold; none means stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            batch: list[_Waiting] = []
            size = 0
            while self._queue and (not batch or size + len(self._queue[0].body) <= _BATCH_BYTES):
                batch.append(self._queue.popleft())
                size += len(batch[-1].body)
            return batch

    def _write(self, batch: Sequence[_Waiting]) -> list[Accepted | Undecodable | StoreError]:
        decoded = self._decoder.decode([waiting.body for waiting in batch])
        try:
            self._store.append(decoded)
        except StoreError as error:
            if len(batch) == 1:
                return [error]
            # should the store refuse one request, the others need not share its fate
            return [outcome for waiting in batch for outcome in self._write([waiting])]
        return list(decoded.outcomes)
