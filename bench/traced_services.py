"""Three services in one process: they answer HTTP requests at once, and export their spans one after another.

Prints the address, then, for each request, its trace id and the time of the last export, which completes the path.

Example: python -m spanproof.bench.traced_services 127.0.0.1:4317
"""

from __future__ import annotations

import argparse
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanproof.bench.load import EXPORT

# the spans of each service by id, parent and kind; 0 is the span of the caller
_SERVICES = (
    ("gateway", ((1, 0, Span.SPAN_KIND_SERVER), (2, 1, Span.SPAN_KIND_CLIENT))),
    ("orders", ((3, 2, Span.SPAN_KIND_SERVER), (4, 3, Span.SPAN_KIND_CLIENT))),
    ("payments", ((5, 4, Span.SPAN_KIND_SERVER),)),
)
_Export: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"
_PAUSE_S = 0.03  # between the exports of two services


def main() -> None:
    """Read the command line and serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("otlp", help="address of the OTLP/gRPC endpoint")
    args = parser.parse_args()
    traceparents: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            traceparents.put(self.headers["traceparent"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Log nothing."""

    with grpc.insecure_channel(args.otlp) as channel, ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        export: _Export = channel.unary_unary(EXPORT)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        while True:
            threading.Thread(target=_export, args=(export, traceparents.get()), daemon=True).start()


def _export(export: _Export, traceparent: str) -> None:
    _, trace_id, caller_id, _ = traceparent.split("-")
    for service, spans in _SERVICES:
        time.sleep(_PAUSE_S)
        body = _make_request(bytes.fromhex(trace_id), bytes.fromhex(caller_id), service, spans)
        sent_ns = time.time_ns()
        export(body)
    print(f"{trace_id} {sent_ns}\n", end="", flush=True)  # a single write, as other threads print too


def _make_request(trace_id: bytes, caller_id: bytes, service: str, spans: tuple[tuple[int, int, int], ...]) -> bytes:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    named = resource.resource.attributes.add(key="service.name")
    named.value.string_value = service
    scope = resource.scope_spans.add()
    for number, parent, kind in spans:
        scope.spans.add(
            trace_id=trace_id,
            span_id=number.to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big") if parent else caller_id,
            name=f"{service} {number}",
            kind=kind,
            start_time_unix_nano=time.time_ns() - 1_000_000 * (10 - number),
            end_time_unix_nano=time.time_ns(),
        )
    return request.SerializeToString()


if __name__ == "__main__":
    main()
