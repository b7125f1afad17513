"""Bounded ingest queue: two threads take all waiting requests as one batch, decode it and commit it.

One thread decodes a batch while the other commits the previous one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from spanproof.collector.otlp.decoder import DecodedBatch, Decoder, ExportResult, UndecodableRequest
from spanproof.collector.otlp.redaction import NO_REDACTION, Redaction
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_QUEUED_BYTES = 256 * 2**20
MAX_QUEUED_REQUESTS = 4096
# Retry delay sent to a rejected sender. The Python exporter drops a batch if the delay is longer.
RETRY_AFTER_S = 1

# A larger commit is not faster and delays the first response. A full batch has more spans than a row group has rows,
# so the commit goes directly into the file (see database.py).
_BATCH_BYTES = 4 * 2**20
_Outcomes: TypeAlias = "Sequence[ExportResult | UndecodableRequest | StoreError]"
_log = logging.getLogger(__name__)


class Backpressure(Exception):
    """Rejection of a request because the queue is full; the sender may retry after `RETRY_AFTER_S`."""


class _QueuedRequest(Struct, frozen=True):
    body: bytes
    result: Future[ExportResult]


class IngestQueue:
    """Queue of requests; completes each one once its spans are committed."""

    def __init__(
        self,
        store: Store,
        *,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        max_queued_requests: int = MAX_QUEUED_REQUESTS,
        redaction: Redaction = NO_REDACTION,
    ) -> None:
        self._store = store
        self._decoder = Decoder(redaction)
        self._decode_lock = threading.Lock()
        self._max_bytes = max_queued_bytes
        self._max_requests = max_queued_requests
        self._queue: deque[_QueuedRequest] = deque()
        # requests not yet answered: queued or being written
        self._pending_bytes = 0
        self._pending_requests = 0
        self._stopping = False
        self._queue_changed = threading.Condition()
        self._decoded_batches: queue.Queue[tuple[list[_QueuedRequest], DecodedBatch] | None] = queue.Queue(1)
        self._telemetry = store.telemetry
        self._telemetry.observe_queue(lambda: self._pending_requests, lambda: self._pending_bytes)
        self._threads = [
            threading.Thread(target=self._decode_until_stopped, name="spanproof-decoder", daemon=True),
            threading.Thread(target=self._write_until_stopped, name="spanproof-writer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, body: bytes) -> Future[ExportResult]:
        """Queue a serialized `ExportTraceServiceRequest`.

        The future completes after the commit, or with `UndecodableRequest` or `StoreError` if nothing is committed.
        Raises `Backpressure` if the queue is full.
        """
        result: Future[ExportResult] = Future()
        result.set_running_or_notify_cancel()  # a sender that disconnects does not cancel the commit
        with self._queue_changed:
            if self._stopping:
                raise Backpressure("the collector is shutting down")
            # a request larger than the whole queue is accepted when it is alone
            if self._pending_requests and (
                self._pending_requests >= self._max_requests or self._pending_bytes + len(body) > self._max_bytes
            ):
                raise Backpressure(f"the collector is busy: {self._pending_requests} requests are waiting")
            self._queue.append(_QueuedRequest(body, result))
            self._pending_requests += 1
            self._pending_bytes += len(body)
            self._queue_changed.notify_all()
        return result

    def drain_and_stop(self, timeout: float | None = None) -> bool:
        """Accept no more requests, write the queued ones, stop; return False if that exceeds `timeout` seconds."""
        with self._queue_changed:
            self._stopping = True
            self._queue_changed.notify_all()
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _take_batch(self) -> list[_QueuedRequest]:
        """Wait for requests and return those for one commit; an empty batch means stop."""
        with self._queue_changed:
            self._queue_changed.wait_for(lambda: self._queue or self._stopping)
            batch: list[_QueuedRequest] = []
            size = 0
            while self._queue and (not batch or size + len(self._queue[0].body) <= _BATCH_BYTES):
                batch.append(self._queue.popleft())
                size += len(batch[-1].body)
            return batch

    def _decode_until_stopped(self) -> None:
        while batch := self._take_batch():
            try:
                decoded = self._decode(batch)
            except Exception as error:  # a bug must fail only this batch, not the collector
                self._set_results(batch, _make_failures(batch, error))
            else:
                self._telemetry.count_received(len(decoded.spans) + sum(decoded.rejected_counts.values()))
                self._decoded_batches.put((batch, decoded))
                # Requests that arrive until the writer takes this batch go into the next one. If it started earlier, it
                # would be too small to go directly into the file.
                self._decoded_batches.join()
        self._decoded_batches.put(None)

    def _write_until_stopped(self) -> None:
        while work := self._decoded_batches.get():
            self._decoded_batches.task_done()
            batch, decoded = work
            try:
                outcomes = self._write(batch, decoded)
            except Exception as error:
                outcomes = _make_failures(batch, error)
            self._set_results(batch, outcomes)

    def _decode(self, batch: Sequence[_QueuedRequest]) -> DecodedBatch:
        with self._decode_lock:
            return self._decoder.decode([request.body for request in batch])

    def _write(self, batch: Sequence[_QueuedRequest], decoded: DecodedBatch) -> _Outcomes:
        try:
            self._store.append(decoded)
        except StoreError as error:
            if len(batch) == 1 or isinstance(error, StoreUnavailable):
                return [error] * len(batch)
            # if the store rejects one request, the others are still stored
            return [outcome for request in batch for outcome in self._write([request], self._decode([request]))]
        self._telemetry.count_stored(len(decoded.spans), decoded.rejected_counts)
        return decoded.outcomes

    def _set_results(self, batch: Sequence[_QueuedRequest], outcomes: _Outcomes) -> None:
        with self._queue_changed:
            self._pending_requests -= len(batch)
            self._pending_bytes -= sum(len(request.body) for request in batch)
        for request, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, ExportResult):
                request.result.set_result(outcome)
            else:
                request.result.set_exception(outcome)


def _make_failures(batch: Sequence[_QueuedRequest], error: Exception) -> _Outcomes:
    _log.error("a batch of %d requests could not be written", len(batch), exc_info=error)
    return [StoreError(f"the spans could not be stored: {error}")] * len(batch)
