"""What the collector tells of itself: counts and times of its work, and spans of it for who traces it."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spanproof.collector.otlp.rejections import RejectionReason

# of a commit of few spans, and of one that waits for a checkpoint; of one trace, and of millions of spans
_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class TracedWork(Protocol):
    """A piece of work under way, of which more may be told."""

    def set_attribute(self, key: str, value: int) -> object:
        """Tell one thing more."""


class _NoopWork:
    def set_attribute(self, key: str, value: int) -> None:
        """Tell nobody."""


StartSpan: TypeAlias = "Callable[[str], AbstractContextManager[TracedWork]]"
_NOOP_WORK = nullcontext(_NoopWork())


class Telemetry:
    """The metrics of one store and its receiver, in a registry of their own.

    They are moved once a request or a batch, never once a span. `trace` begins a span of the work that it names; it
    does nothing unless somebody puts a tracer there.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.start_span: StartSpan = lambda _name: _NOOP_WORK
        self._received = self._make_counter("spans_received", "Spans that came in requests that could be decoded.")
        self._accepted = self._make_counter("spans_accepted", "Spans that were stored.")
        self._rejected = self._make_counter("spans_rejected", "Spans that were refused, alone.", "reason")
        self._expired = self._make_counter("spans_forgotten", "Spans that were removed as the limits say.", "why")
        self._requests = self._make_counter(
            "requests", "OTLP requests that were answered.", "transport", "signal", "outcome"
        )
        self._derived = self._make_counter("traces_derived", "Traces whose calls were derived, anew or again.")
        self._commits = self._make_histogram("commit_seconds", "Time to write a batch of spans and to commit it.")
        self._derivations = self._make_histogram("derive_seconds", "Time to derive calls from the spans that are new.")
        self._queued_requests = self._make_gauge("queue_requests", "Requests that wait to be stored.")
        self._queued_bytes = self._make_gauge("queue_bytes", "Bytes of the requests that wait to be stored.")

    def count_request(self, transport: str, signal: str, outcome: str) -> None:
        """Count a request with the answer it gets."""
        self._requests.labels(transport, signal, outcome).inc()

    def count_received(self, spans: int) -> None:
        """Count the spans of a batch, before it is known what becomes of them."""
        self._received.inc(spans)

    def count_stored(self, accepted: int, rejected: Mapping[RejectionReason, int]) -> None:
        """Count what became of a batch."""
        self._accepted.inc(accepted)
        for reason, spans in rejected.items():
            self._rejected.labels(reason).inc(spans)

    def count_expired(self, reason: str, spans: int) -> None:
        """Count the spans that the store forgot."""
        self._expired.labels(reason).inc(spans)

    def observe_queue(self, requests: Callable[[], int], size: Callable[[], int]) -> None:
        """Ask these whenever somebody wants to know how long the queue is."""
        self._queued_requests.set_function(requests)
        self._queued_bytes.set_function(size)

    @contextmanager
    def measure_commit(self, spans: int) -> Iterator[None]:
        """Measure the commit of a batch."""
        with self.start_span("commit") as work, self._commits.time():
            work.set_attribute("spanproof.spans", spans)
            yield

    @contextmanager
    def measure_derivation(self) -> Iterator[Callable[[int], None]]:
        """Measure a derivation; gives what is to be told how many traces it was of."""
        with self.start_span("derive") as work, self._derivations.time():

            def tell(traces: int) -> None:
                work.set_attribute("spanproof.traces", traces)
                self._derived.inc(traces)

            yield tell

    def _make_counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"spanproof_{name}", text, labels, registry=self.registry)

    def _make_gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"spanproof_{name}", text, registry=self.registry)

    def _make_histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"spanproof_{name}", text, registry=self.registry, buckets=_DURATION_BUCKETS_S)
