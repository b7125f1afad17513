"""Server spans of the fault server, as a framework's instrumentation would record them."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SERVICES = ("inventory", "backup")


class ServerSpans:
    """A tracer for each service of the fault server."""

    def __init__(self, otlp_http: str) -> None:
        self._providers = {name: TracerProvider(resource=Resource({"service.name": name})) for name in SERVICES}
        for provider in self._providers.values():
            exporter = OTLPSpanExporter(endpoint=f"http://{otlp_http}/v1/traces", timeout=5)
            provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))

    def start_http(self, service: str, method: str, path: str, headers: Mapping[str, str], address: str) -> Span:
        host, _, port = address.partition(":")
        return self._start(
            service,
            f"{method} /items/{{item}}",
            headers,
            {
                "http.request.method": method,
                "http.route": "/items/{item}",
                "url.scheme": "http",
                "url.path": path,
                "server.address": host,
                "server.port": int(port),
                "network.protocol.version": "1.1",
            },
        )

    def start_grpc(self, service: str, method: str, headers: Mapping[str, str]) -> Span:
        rpc_service, _, rpc_method = method.strip("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": rpc_service, "rpc.method": rpc_method}
        return self._start(service, method.strip("/"), headers, attributes)

    def _start(self, service: str, name: str, headers: Mapping[str, str], attributes: Mapping[str, str | int]) -> Span:
        parent = TraceContextTextMapPropagator().extract(headers)
        tracer = self._providers[service].get_tracer("spanproof.field")
        return tracer.start_span(name, parent, SpanKind.SERVER, attributes)

    def close(self) -> None:
        for provider in self._providers.values():
            provider.shutdown()


def end_http(span: Span | None, status: int | None, error: str | None = None) -> None:
    """End a span: with the status that was sent, or with the error that kept the server from sending one."""
    if span is None:
        return
    if status is not None:
        span.set_attribute("http.response.status_code", status)
        error = str(status) if status >= 500 else error
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def end_grpc(span: Span | None, code: int) -> None:
    """End a span with the status of the call."""
    if span is None:
        return
    span.set_attribute("rpc.grpc.status_code", code)
    if code in (2, 4, 12, 13, 14, 15):
        span.set_attribute("error.type", str(code))
        span.set_status(Status(StatusCode.ERROR))
    span.end()
