"""An HTTP service in this process that exports the spans of each request in one go."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS


@dataclass(slots=True)
class App:
    """``shop``, which calls ``bank``. `failures` maps paths to the number of 503 responses to come."""

    collector: str
    base_url: str = ""
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def answer(self, path: str, headers: dict[str, str]) -> int:
        self.requests.append(path)
        self.headers.append(headers)
        remaining = self.failures.get(path, 0)
        self.failures[path] = remaining - 1
        _, trace_id, parent_id, _ = headers["traceparent"].split("-")
        self._export(path, bytes.fromhex(trace_id), bytes.fromhex(parent_id))
        return 503 if remaining > 0 else 200

    def _export(self, path: str, trace_id: bytes, parent_id: bytes) -> None:
        request = ExportTraceServiceRequest()
        now = time.time_ns()
        for service, name, kind in (
            ("shop", f"GET {path}", "server"),
            ("shop", "GET", "client"),
            ("bank", "GET", "server"),
        ):
            resource_spans = request.resource_spans.add()
            resource_spans.resource.attributes.add(key="service.name").value.string_value = service
            span_id = secrets.token_bytes(8)
            resource_spans.scope_spans.add().spans.add(
                trace_id=trace_id, span_id=span_id, parent_span_id=parent_id, name=name, kind=SPAN_KINDS[kind],
                start_time_unix_nano=now, end_time_unix_nano=now + 1_000_000,
            ).attributes.add(key="url.path").value.string_value = path  # fmt: skip
            parent_id = span_id
        content_type = {"content-type": "application/x-protobuf"}
        url = f"http://{self.collector}/v1/traces"
        httpx.post(url, content=request.SerializeToString(), headers=content_type, trust_env=False).raise_for_status()


@contextmanager
def open_app(collector: str) -> Iterator[App]:
    """Serve on a free loopback port; export spans to the OTLP/HTTP address of a collector."""
    app = App(collector)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = app.answer(self.path, {name.lower(): value for name, value in self.headers.items()})
            body = b'{"echo": "%s"}' % self.headers.get("authorization", "").encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    app.base_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield app
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
