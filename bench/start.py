"""Start-up time of the command line: `--version`, `check` and `run`, each as a whole process.

`version_s` and `check_s` are the wall time over that of `python -c pass`. `run_s` is the wall time of `spanproof run`
of one proof over the time that the service takes; the service answers and exports its spans at once. Each figure is
the median of seven runs, which are interleaved. The last line is JSON: `{"version_s", "check_s", "run_s"}`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.bench.ports import find_free_port

RUNS = 7
SPANPROOF = str(Path(sys.executable).with_name("spanproof"))
PROOF = """\
proof "the order is charged" {{
  when GET "http://127.0.0.1:{port}/order"
  settle within 10s
  expect response.status == 200
  expect path shop -> bank
}}
"""
SPANS = (("shop", 2, "GET /order"), ("shop", 3, "GET"), ("bank", 2, "GET /charge"))  # service, OTLP kind, name


class Service(ThreadingHTTPServer):
    """A service `shop` that calls a service `bank`: it exports the spans of both, and then answers."""

    def __init__(self, otlp_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.otlp_url = f"http://127.0.0.1:{otlp_port}/v1/traces"
        self.busy_s = 0.0


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        begin = time.perf_counter()
        body = make_export(self.headers["traceparent"])
        headers = {"content-type": "application/x-protobuf"}
        urllib.request.urlopen(urllib.request.Request(self.server.otlp_url, body, headers)).close()  # noqa: S310 (ours)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
        self.server.busy_s = time.perf_counter() - begin

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def make_export(traceparent: str) -> bytes:
    """Return the spans of one request as an OTLP export, each the child of the one before."""
    _, trace_id, parent_id, _ = traceparent.split("-")
    export = ExportTraceServiceRequest()
    now_ns = time.time_ns()
    for number, (service, kind, name) in enumerate(SPANS, 1):
        resource = export.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        resource.scope_spans.add().spans.add(
            trace_id=bytes.fromhex(trace_id),
            span_id=number.to_bytes(8, "big"),
            parent_span_id=bytes.fromhex(parent_id),
            name=name,
            kind=kind,
            start_time_unix_nano=now_ns + number,
            end_time_unix_nano=now_ns + 1_000_000 - number,
        )
        parent_id = number.to_bytes(8, "big").hex()
    return export.SerializeToString()


def measure(command: list[str]) -> float:
    """Return the wall time of a command that must succeed."""
    # installed packages have bytecode; a checkout has it after the first run, unless the environment forbids that
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)  # noqa: S603 (ours)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    otlp_port = find_free_port()
    service = Service(otlp_port)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("start.proof").write_text(PROOF.format(port=service.server_port), encoding="utf-8")
        addresses = ["--otlp-http", f"127.0.0.1:{otlp_port}", "--otlp-grpc", "127.0.0.1:0"]
        commands: dict[str, Callable[[], float]] = {
            "python_s": lambda: measure([sys.executable, "-c", "pass"]),
            "version_s": lambda: measure([SPANPROOF, "--version"]),
            "check_s": lambda: measure([SPANPROOF, "check", "start.proof"]),
            "run_s": lambda: measure([SPANPROOF, "run", "start.proof", *addresses]) - service.busy_s,
        }
        for command in commands.values():
            command()  # once without counting: bytecode and the parser's tables are cached
        figures: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                figures[name].append(command())
    service.shutdown()
    medians = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        print(f"{name}: {min(values):.3f} to {max(values):.3f}, median {medians[name]:.3f}")
    over_python = {name: medians[name] - medians["python_s"] for name in ("version_s", "check_s")}
    result = {**over_python, "run_s": medians["run_s"]}
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
