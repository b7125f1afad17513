"""web in Python: serves HTTP with wsgiref and its stock instrumentation, and asks inventory through one library.

Usage: web.py CLIENT. The first line of its output is its port. Spans are exported in batches every 200 ms.
"""

from __future__ import annotations

import importlib
import os
import signal
import socketserver
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

ATTEMPTS = 3  # in all
BACKOFF_S = 0.1
TIMEOUT_S = 0.5


def set_up_tracing(service: str = "web") -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=os.environ["FIELD_OTLP"] + "/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
    trace.set_tracer_provider(provider)
    return provider


def is_answered(ask, url: str, number: int) -> bool:
    try:
        ask(url, {"x-field-ask": str(number)})
    except Exception:
        return False
    return True


def do(ask, shape: str, inventory: str, backup: str) -> bool:
    """Do one shape of work; return whether web can answer."""
    if shape == "two":
        is_answered(ask, f"{inventory}/items/1", 1)
        return is_answered(ask, f"{inventory}/items/2", 2)
    if shape == "parallel":
        with ThreadPoolExecutor(2) as pool:
            url = f"{inventory}/items/1"
            asked = [pool.submit(copy_context().run, is_answered, ask, url, number) for number in (1, 2)]
            wait(asked)
            return all(each.result() for each in asked)
    if is_answered(ask, f"{inventory}/items/1", 1):
        return True
    return shape == "fallback" and is_answered(ask, f"{backup}/items/1", 1)


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    provider = set_up_tracing()
    client = importlib.import_module(sys.argv[1])
    client.instrument()

    def app(environ, start_response):
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        done = do(client.ask, query["shape"], query["inventory"], query["backup"])
        start_response("200 OK" if done else "502 Bad Gateway", [("content-type", "text/plain")])
        return [b"done" if done else b"failed"]

    server = make_server("127.0.0.1", 0, OpenTelemetryMiddleware(app), Server, Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(server.server_port, flush=True)
    server.serve_forever(0.05)
    provider.shutdown()


if __name__ == "__main__":
    main()
