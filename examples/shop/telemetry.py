"""Tracing of one service: SDK, exporter, and instrumentation of HTTP."""

import os
import uuid
from typing import Any

import httpx
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor, RequestInfo
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

EXPORT_DELAY_MS = 100
EXPORT_TIMEOUT_S = 2
DEFAULT_VERSION = "1.4.2"

tracer = trace.get_tracer("spanproof.examples.shop")


def start_tracing(service: str) -> TracerProvider:
    """Set up the SDK for this process; the OTLP endpoint and protocol come from `OTEL_EXPORTER_OTLP_…`."""
    # Without it, the instrumentations use the deprecated names (http.status_code).
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    resource = Resource.create(
        {
            "service.name": service,
            "service.version": os.environ.get("SHOP_VERSION", DEFAULT_VERSION),
            "service.instance.id": str(uuid.uuid4()),
        }
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(_create_exporter(), schedule_delay_millis=EXPORT_DELAY_MS))
    trace.set_tracer_provider(provider)
    return provider


def _create_exporter() -> SpanExporter:
    # Imported here because each service needs only one of the two, and both are slow to import.
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        return grpc.OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    return http.OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)


def trace_app(app: FastAPI) -> None:
    """Add a SERVER span to every request except the health check."""
    FastAPIInstrumentor.instrument_app(app, excluded_urls="/healthz", exclude_spans=["receive", "send"])


def trace_client(client: httpx.AsyncClient, callee: str) -> None:
    """Add a CLIENT span to every request, with the callee's name and the number of resends."""

    async def describe_request(span: trace.Span, request: RequestInfo) -> None:
        # All services share one host, so server.address does not identify the callee if there is no response.
        span.set_attribute("service.peer.name", callee)
        extensions: dict[str, Any] = dict(request.extensions or {})
        if resend_count := extensions.get("resend_count", 0):
            span.set_attribute("http.request.resend_count", resend_count)

    HTTPXClientInstrumentor.instrument_client(client, request_hook=describe_request)
