"""Spans of spanproof's own work, exported with the OpenTelemetry SDK; imported only with ``--trace-self``."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanproof import __version__

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# polled frequently, and of no interest in a search for slow requests
_UNTRACED_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
# time limit of the shutdown if the endpoint does not respond
_SHUTDOWN_TIMEOUT_S: Final = 2.0


class SelfTracer:
    """Exports spans to an endpoint over gRPC, until the end of `with`."""

    def __init__(self, endpoint: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint)
        resource = Resource.create({"service.name": "spanproof", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("spanproof", __version__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        abort_timer = threading.Timer(_SHUTDOWN_TIMEOUT_S, self._exporter.shutdown)
        abort_timer.start()
        self._provider.shutdown()
        abort_timer.cancel()

    def start_span(self, name: str) -> AbstractContextManager[Span]:
        """Start a span as a child of the current one."""
        return self._tracer.start_as_current_span(name)

    def wrap_app(self, app: ASGIApp) -> ASGIApp:
        """Return the app with a server span for each request, as a child of the client's span."""
        propagator = TraceContextTextMapPropagator()

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in _UNTRACED_PATHS:
                await app(scope, receive, send)
                return
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            method = scope["method"]
            with self._tracer.start_as_current_span(
                method,
                propagator.extract(headers),
                SpanKind.SERVER,
                {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]},
            ) as span:

                async def send_and_record(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        _record_response(span, scope, message["status"])
                    await send(message)

                await app(scope, receive, send_and_record)

        return traced


def _record_response(span: Span, scope: Scope, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.set_attribute("http.route", route)
        span.update_name(f"{scope['method']} {route}")
    if status >= 500:
        span.set_status(StatusCode.ERROR)
