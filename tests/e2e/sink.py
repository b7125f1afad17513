"""A temporary OTLP endpoint, gRPC and HTTP, that keeps the received spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanproof.tests.command import DEADLINE_S

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One received span with its resource."""

    service: str
    resource: dict[str, Any]
    span: Span

    @property
    def attributes(self) -> dict[str, Any]:
        return _read_attributes(self.span.attributes)


class Sink:
    """The spans received so far, with a way to wait for more."""

    def __init__(self) -> None:
        self.grpc_address = ""
        self.http_address = ""
        self.protocols: dict[str, set[str]] = {}
        self._spans: list[ReceivedSpan] = []
        self._arrived = threading.Condition()

    def take(self, request: trace_service_pb2.ExportTraceServiceRequest, protocol: str) -> None:
        with self._arrived:
            for resource_spans in request.resource_spans:
                resource = _read_attributes(resource_spans.resource.attributes)
                service = resource["service.name"]
                self.protocols.setdefault(service, set()).add(protocol)
                for scope_spans in resource_spans.scope_spans:
                    self._spans.extend(ReceivedSpan(service, resource, span) for span in scope_spans.spans)
            self._arrived.notify_all()

    def wait_for(self, trace_id: str, is_complete: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """Wait until `is_complete` accepts the spans of a trace; return these in the order of their starts."""
        deadline = time.monotonic() + DEADLINE_S
        with self._arrived:
            while not is_complete(spans := self._find(trace_id)):
                if not self._arrived.wait(deadline - time.monotonic()):
                    names = [(received.service, received.span.name) for received in spans]
                    raise TimeoutError(f"trace {trace_id} is not as expected: {names}")
        return spans

    def all_spans(self) -> list[ReceivedSpan]:
        with self._arrived:
            return list(self._spans)

    def _find(self, trace_id: str) -> list[ReceivedSpan]:
        spans = [received for received in self._spans if received.span.trace_id.hex() == trace_id]
        return sorted(spans, key=lambda received: received.span.start_time_unix_nano)


def _read_attributes(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


@contextmanager
def open_sink() -> Iterator[Sink]:
    """Serve both protocols on free loopback ports."""
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            sink.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body), "http")
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def export(request: trace_service_pb2.ExportTraceServiceRequest, _: grpc.ServicerContext) -> Any:
        sink.take(request, "grpc")
        return trace_service_pb2.ExportTraceServiceResponse()

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    grpc_server = grpc.server(futures.ThreadPoolExecutor(2))
    # The generated servicer classes of the protocol's package are not typed.
    method = grpc.unary_unary_rpc_method_handler(
        export,
        trace_service_pb2.ExportTraceServiceRequest.FromString,
        trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
    )
    grpc_server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Export": method})])
    sink.grpc_address = f"127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"
    sink.http_address = f"127.0.0.1:{http_server.server_port}"
    grpc_server.start()
    try:
        yield sink
    finally:
        grpc_server.stop(None).wait()
        http_server.shutdown()
        http_server.server_close()
        thread.join()
