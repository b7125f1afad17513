"""Metrics of the collector for Prometheus."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from spanproof.collector.storage.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spanproof.collector.otlp.rejections import RejectionReason

# from a commit of few spans to one that waits for a checkpoint; from one trace to millions of spans
_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics(Telemetry):
    """The metrics of one store and its receiver, in a registry of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self._received = self._make_counter("spans_received", "Spans in requests that could be decoded.")
        self._accepted = self._make_counter("spans_accepted", "Spans that were stored.")
        self._rejected = self._make_counter("spans_rejected", "Spans that were rejected.", "reason")
        self._expired = self._make_counter("spans_forgotten", "Spans that retention limits removed.", "why")
        self._requests = self._make_counter(
            "requests", "OTLP requests that were answered.", "transport", "signal", "outcome"
        )
        self._derived = self._make_counter(
            "traces_derived", "Traces whose calls were derived, including repeated derivations."
        )
        self._commits = self._make_histogram("commit_seconds", "Time to write a batch of spans and to commit it.")
        self._derivations = self._make_histogram("derive_seconds", "Time to derive calls from new spans.")
        self._queued_requests = self._make_gauge("queue_requests", "Requests that wait to be stored.")
        self._queued_bytes = self._make_gauge("queue_bytes", "Bytes of the requests that wait to be stored.")

    def count_request(self, transport: str, signal: str, outcome: str) -> None:
        """Count a request by its outcome."""
        self._requests.labels(transport, signal, outcome).inc()

    def count_received(self, spans: int) -> None:
        """Count the spans of a decoded batch, before they are stored or rejected."""
        self._received.inc(spans)

    def count_stored(self, accepted: int, rejected: Mapping[RejectionReason, int]) -> None:
        """Count the accepted and rejected spans of a batch."""
        self._accepted.inc(accepted)
        for reason, spans in rejected.items():
            self._rejected.labels(reason).inc(spans)

    def count_expired(self, reason: str, spans: int) -> None:
        """Count the spans that retention deleted."""
        self._expired.labels(reason).inc(spans)

    def observe_queue(self, requests: Callable[[], int], size: Callable[[], int]) -> None:
        """Read the length of the queue and its size in bytes from these functions when metrics are collected."""
        self._queued_requests.set_function(requests)
        self._queued_bytes.set_function(size)

    @contextmanager
    def measure_commit(self, spans: int) -> Iterator[None]:
        """Measure the commit of a batch."""
        with super().measure_commit(spans), self._commits.time():
            yield

    @contextmanager
    def measure_derivation(self) -> Iterator[Callable[[int], None]]:
        """Measure a derivation; yield a function that takes the number of derived traces."""
        with super().measure_derivation() as report_to_span, self._derivations.time():

            def report(traces: int) -> None:
                report_to_span(traces)
                self._derived.inc(traces)

            yield report

    def _make_counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"spanproof_{name}", text, labels, registry=self.registry)

    def _make_gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"spanproof_{name}", text, registry=self.registry)

    def _make_histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"spanproof_{name}", text, registry=self.registry, buckets=_DURATION_BUCKETS_S)
