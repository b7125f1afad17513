"""A throwaway OTLP endpoint, gRPC and HTTP, that keeps what it is sent."""

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
class Seen:
    """One span that arrived."""

    service: str
    resource: dict[str, Any]
    span: Span

    @property
    def attributes(self) -> dict[str, Any]:
        return _read_attributes(self.span.attributes)


class Sink:
    """What has arrived so far, and waiting for more."""

    def __init__(self) -> None:
        self.grpc_address = ""
        self.http_address = ""
        self.protocols: dict[str, set[str]] = {}
        self._seen: list[Seen] = []
        self._arrived = threading.Condition()

    def take(self, request: trace_service_pb2.ExportTraceServiceRequest, protocol: str) -> None:
        with self._arrived:
            for resource_spans in request.resource_spans:
                resource = _read_attributes(resource_spans.resource.attributes)
                service = resource["service.name"]
                self.protocols.setdefault(service, set()).add(protocol)
                for scope_spans in resource_spans.scope_spans:
                    self._seen.extend(Seen(service, resource, span) for span in scope_spans.spans)
            self._arrived.notify_all()

    def wait_for(self, trace_id: str, enough: Callable[[list[Seen]], bool]) -> list[Seen]:
        """Wait until the trace is as it should be; the spans come in the order they started."""
        deadline = time.monotonic() + DEADLINE_S
        with self._arrived:
            while not enough(found := self._find(trace_id)):
                if not self._arrived.wait(deadline - time.monotonic()):
                    shown = [(seen.service, seen.span.name) for seen in found]
                    raise TimeoutError(f"trace {trace_id} is not as expected: {shown}")
        return found

    def all_spans(self) -> list[Seen]:
        with self._arrived:
            return list(self._seen)

    def _find(self, trace_id: str) -> list[Seen]:
        found = [seen for seen in self._seen if seen.span.trace_id.hex() == trace_id]
        return sorted(found, key=lambda seen: seen.span.start_time_unix_nano)


def _read_attributes(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


@contextmanager
def open_sink() -> Iterator[Sink]:
    """Open both doors on free loopback ports."""
    sink = Sink()

    class Door(BaseHTTPRequestHandler):
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

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    http_server.daemon_threads = True
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    grpc_server = grpc.server(futures.ThreadPoolExecutor(2))
    # By hand, because what the protocol's package generates for it is not typed.
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
