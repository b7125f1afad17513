"""The `spanproof` command as a process, and an instrumented service that proofs can call."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanproof.tests.warm_start import ForkedCommand

COMMAND = Path(sys.executable).with_name("spanproof")
DEADLINE_S = 90.0
FREE = "127.0.0.1:0"
FREE_PORTS = ("--otlp-grpc", FREE, "--otlp-http", FREE)


@dataclass(frozen=True, slots=True)
class Finished:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


class Running:
    """A started command: a new process if `cold`, or else a fork of a process that has imported everything."""

    def __init__(self, arguments: tuple[object, ...], cwd: Path, env: dict[str, str], *, cold: bool = False) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANPROOF_"))}
        inherited.pop("FORCE_COLOR", None)
        words = [str(argument) for argument in arguments]
        self.process: subprocess.Popen[bytes] | ForkedCommand
        if cold or sys.platform != "linux":
            self.process = subprocess.Popen(
                [str(COMMAND), *words],
                cwd=cwd,
                env=inherited | env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its descendants can be found by the session
            )
        else:
            self.process = ForkedCommand(words, cwd, inherited | env)
        self._read = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_line(self) -> str:
        """Read the next line of the output."""
        return self.read_until("\n")

    def read_until(self, text: str) -> str:
        """Read the output until it contains `text`; return what was read."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + DEADLINE_S
        raw = b""
        while text.encode() not in raw:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(descriptor, 1 if text == "\n" else 65536) if ready else b""
            if not more:
                raise AssertionError(f"expected {text!r}, but the command printed: {raw.decode()} {self._end()}")
            raw += more
        self._read += raw.decode()
        return raw.decode()

    def _end(self) -> str:
        self.stop()
        return repr(self.finish())

    def finish(self) -> Finished:
        """Wait for the end of the command."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        finished = Finished(self.process.returncode, self._read + out.decode(), err.decode())
        if "Traceback" in finished.out + finished.err:
            pytest.fail(f"a traceback: {(finished.out + finished.err).strip().splitlines()[-1]}")
        return finished

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the end of the command; return whether it has ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the command."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop the command if it is still running."""
        if self.process.poll() is None:
            self.process.terminate()
            if not self.wait(10):
                self.kill()

    def close(self) -> None:
        self.stop()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Service:
    """An HTTP service that exports spans of itself (`shop`) and of its callee (`bank`).

    ``/silent`` exports none; ``/fail`` answers 500; all other paths answer 200. Requests wait for `export_to`.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[str] = []
        self._has_collector = threading.Event()
        self._shop, self._bank = (
            TracerProvider(resource=Resource({"service.name": name})) for name in ("shop", "bank")
        )

    def export_to(self, otlp_http: str) -> None:
        """Set the address of the collector."""
        for provider in (self._bank, self._shop):
            exporter = OTLPSpanExporter(endpoint=f"http://{otlp_http}/v1/traces", timeout=5)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._has_collector.set()

    def answer(self, path: str, headers: dict[str, str]) -> int:
        self.requests.append(path)
        if path == "/silent":
            return 200
        assert self._has_collector.wait(DEADLINE_S)
        parent = TraceContextTextMapPropagator().extract({name.lower(): value for name, value in headers.items()})
        status = 500 if path == "/fail" else 200
        shop, bank = self._shop.get_tracer("tests"), self._bank.get_tracer("tests")
        attributes = {"http.request.method": "GET", "http.response.status_code": status}
        with shop.start_as_current_span(f"GET {path}", parent, SpanKind.SERVER, attributes):
            client = {"server.address": "bank", "http.request.method": "GET", "http.response.status_code": 200}
            with (
                shop.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=client),
                bank.start_as_current_span("GET /transfers", kind=SpanKind.SERVER, attributes=client),
            ):
                pass
        return status

    def close(self) -> None:
        self._has_collector.set()
        for provider in (self._bank, self._shop):
            provider.shutdown()


@contextmanager
def open_service() -> Iterator[Service]:
    """Serve on a free loopback port."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = service.answer(self.path, dict(self.headers))
            body = b'{"state": "paid"}'
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.base_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        service.close()
        server.shutdown()
        server.server_close()
        thread.join()


def find_address(line: str, name: str) -> str:
    """Return the address before or after `name` in the first line of a command."""
    match = re.search(rf"{re.escape(name)} (?:http://)?([\w.]+:\d+)", line) or re.search(
        rf"([\w.]+:\d+) \({re.escape(name)}\)", line
    )
    assert match, line
    return match[1]


def wait_until(condition: Callable[[], bool], description: str) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {description}"
        threading.Event().wait(0.02)


def find_in_session(leader: int) -> set[int]:
    """Return the running processes of a session except its leader, whatever their current parent."""
    pids = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == leader and state != "Z":
            pids.add(int(status.parent.name))
    return pids - {leader}
