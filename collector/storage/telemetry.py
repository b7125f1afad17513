"""Telemetry of the collector: what a store and its receiver report about their work."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spanproof.collector.otlp.rejections import RejectionReason


class TracedWork(Protocol):
    """A span of work in progress, which accepts attributes."""

    def set_attribute(self, key: str, value: int) -> object:
        """Set an attribute of the span."""


class _NoopWork:
    def set_attribute(self, key: str, value: int) -> None:
        """Ignore the attribute."""


StartSpan: TypeAlias = "Callable[[str], AbstractContextManager[TracedWork]]"
_NOOP_WORK = nullcontext(_NoopWork())


class Telemetry:
    """Reports of one store and its receiver, once per request or batch, never per span.

    Nothing is counted here, but in `metrics`, which is slow to import. `start_span` starts a span for the work that it
    names; by default, it does nothing. `--trace-self` replaces it.
    """

    def __init__(self) -> None:
        self.start_span: StartSpan = lambda _name: _NOOP_WORK

    def count_request(self, transport: str, signal: str, outcome: str) -> None:
        """Count a request by its outcome."""

    def count_received(self, spans: int) -> None:
        """Count the spans of a decoded batch, before they are stored or rejected."""

    def count_stored(self, accepted: int, rejected: Mapping[RejectionReason, int]) -> None:
        """Count the accepted and rejected spans of a batch."""

    def count_expired(self, reason: str, spans: int) -> None:
        """Count the spans that retention deleted."""

    def observe_queue(self, requests: Callable[[], int], size: Callable[[], int]) -> None:
        """Take functions that return the length of the queue and its size in bytes."""

    @contextmanager
    def measure_commit(self, spans: int) -> Iterator[None]:
        """Measure the commit of a batch."""
        with self.start_span("commit") as work:
            work.set_attribute("spanproof.spans", spans)
            yield

    @contextmanager
    def measure_derivation(self) -> Iterator[Callable[[int], None]]:
        """Measure a derivation; yield a function that takes the number of derived traces."""
        with self.start_span("derive") as work:

            def report(traces: int) -> None:
                work.set_attribute("spanproof.traces", traces)

            yield report
