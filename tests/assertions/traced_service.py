"""Results of proofs run in this process, and services whose spans go directly into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Span, SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.events import ClaimJudged, ProofFinished, RunEvent
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store


class StoreExporter(SpanExporter):
    def __init__(self, store: Store) -> None:
        self._store = store
        self._decoder = Decoder()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._store.append(self._decoder.decode([encode_spans(spans).SerializeToString()]))
        return SpanExportResult.SUCCESS


def read_context(headers: Mapping[str, str]) -> Context:
    """Read the trace and the baggage that a request carries."""
    lower = {name.lower(): value for name, value in headers.items()}
    return W3CBaggagePropagator().extract(lower, TraceContextTextMapPropagator().extract(lower))


@dataclass
class TracedService:
    """A service that sends spans; `received_headers` are the headers of its requests and messages."""

    name: str
    provider: TracerProvider
    received_headers: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def serve(self, name: str, headers: Mapping[str, str], kind: SpanKind = SpanKind.SERVER) -> Iterator[Span]:
        """Continue the trace of a request with a span."""
        self.received_headers.append(dict(headers))
        with self.begin(name, read_context(headers), kind) as span:
            yield span

    @contextmanager
    def begin(
        self,
        name: str,
        parent: Context,
        kind: SpanKind = SpanKind.SERVER,
        links: Sequence[Link] = (),
        attributes: Mapping[str, str] | None = None,
    ) -> Iterator[Span]:
        tracer = self.provider.get_tracer("tests")
        with tracer.start_as_current_span(name, parent, kind, attributes or {}, links) as span:
            yield span


def link_to(headers: Mapping[str, str]) -> Link:
    return Link(get_current_span(read_context(headers)).get_span_context())


@dataclass(frozen=True)
class ProofResult:
    """The events of a finished proof."""

    events: list[RunEvent]

    @property
    def finished(self) -> ProofFinished:
        (event,) = (each for each in self.events if isinstance(each, ProofFinished))
        return event

    @property
    def outcome(self) -> Outcome:
        return self.finished.outcome

    @property
    def error(self) -> str:
        assert self.finished.error is not None, self.reasons
        return self.finished.error

    @property
    def reasons(self) -> list[str]:
        return [
            f"{each.verdict.outcome}: {each.verdict.reason}" for each in self.events if isinstance(each, ClaimJudged)
        ]


Prove = Callable[..., ProofResult]
