"""Instrumented code in the process of the test: its trace context and its spans."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from spanproof.assertions.triggers.context import RUN_ID_ATTRIBUTE, TraceContext

FLUSH_TIMEOUT_MS: Final = 5000


@dataclass(slots=True)
class AttachedProviders:
    """Tracer providers of this process that also export to our collector."""

    # without the SDK's types: it is imported only if the process has a provider
    processors: list[tuple[Any, Any]] = field(default_factory=list)  # pairs of provider and our processor
    preexisting: Any = field(default_factory=lambda: find_global_provider())  # created before our collector

    def add(self, provider: Any, grpc_endpoint: str) -> None:
        """Receive the further spans of a provider."""
        if any(known is provider for known, _ in self.processors):
            return
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=grpc_endpoint))
        provider.add_span_processor(processor)
        self.processors.append((provider, processor))

    def flush(self) -> None:
        """Export all spans that have ended."""
        for _, processor in self.processors:
            processor.force_flush(FLUSH_TIMEOUT_MS)
        provider = find_global_provider()
        if provider is not None and all(provider is not known for known, _ in self.processors):
            provider.force_flush(FLUSH_TIMEOUT_MS)

    def close(self) -> None:
        """Export the remaining spans and stop, so that no export follows after the collector has stopped."""
        self.flush()
        for _, processor in self.processors:
            processor.shutdown()


def find_global_provider() -> Any:
    """Return the global tracer provider if it can be flushed, as that of the SDK; else None."""
    api = sys.modules.get("opentelemetry.trace")
    provider = api.get_tracer_provider() if api is not None else None
    return provider if hasattr(provider, "force_flush") and hasattr(provider, "add_span_processor") else None


@contextmanager
def activate_context(context: TraceContext) -> Iterator[None]:
    """Make a trace the parent of spans that this thread or task starts, if OpenTelemetry is installed."""
    try:
        from opentelemetry import baggage
        from opentelemetry import context as current
        from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
    except ImportError:
        yield
        return
    parent = SpanContext(
        int(context.trace_id, 16), int(context.span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    token = current.attach(
        baggage.set_baggage(RUN_ID_ATTRIBUTE, context.request_id, set_span_in_context(NonRecordingSpan(parent)))
    )
    try:
        yield
    finally:
        current.detach(token)
