"""The `spanproof` command as people start it, and a service that it can ask."""

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

from spanproof.tests.warm_start import Forked

COMMAND = Path(sys.executable).with_name("spanproof")
DEADLINE_S = 90.0
FREE = "127.0.0.1:0"
FREE_PORTS = ("--otlp-grpc", FREE, "--otlp-http", FREE)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Running:
    """A command that has been started; ``cold``, as people start it, else without importing it anew."""

    def __init__(self, arguments: tuple[object, ...], cwd: Path, env: dict[str, str], *, cold: bool = False) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANPROOF_"))}
        kept.pop("FORCE_COLOR", None)
        told = [str(argument) for argument in arguments]
        self.process: subprocess.Popen[bytes] | Forked
        if cold or sys.platform != "linux":
            self.process = subprocess.Popen(
                [str(COMMAND), *told],
                cwd=cwd,
                env=kept | env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that whatever it starts can be told by its session
            )
        else:
            self.process = Forked(told, cwd, kept | env)
        self._read = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_line(self) -> str:
        """Read the next line of what it prints."""
        return self.read_until("\n")

    def read_until(self, text: str) -> str:
        """Read on until `text` was printed; return what was printed up to there."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + DEADLINE_S
        raw = b""
        while text.encode() not in raw:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(descriptor, 1 if text == "\n" else 65536) if ready else b""
            if not more:
                raise AssertionError(f"it never said {text!r}, but: {raw.decode()} {self._end()}")
            raw += more
        self._read += raw.decode()
        return raw.decode()

    def _end(self) -> str:
        self.stop()
        return repr(self.finish())

    def finish(self) -> Finished:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        finished = Finished(self.process.returncode, self._read + out.decode(), err.decode())
        if "Traceback" in finished.out + finished.err:
            pytest.fail(f"a traceback: {(finished.out + finished.err).strip().splitlines()[-1]}")
        return finished

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end for so long at most; say whether it came."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it if it still runs."""
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
    """Answers HTTP and sends spans of itself (`shop`) and of what it asks (`bank`), once told where to.

    ``/silent`` sends none; ``/fail`` answers 500; everything else 200. A request waits for the address.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[str] = []
        self._told = threading.Event()
        self._shop, self._bank = (
            TracerProvider(resource=Resource({"service.name": name})) for name in ("shop", "bank")
        )

    def export_to(self, otlp_http: str) -> None:
        """Name the collector."""
        for provider in (self._bank, self._shop):
            exporter = OTLPSpanExporter(endpoint=f"http://{otlp_http}/v1/traces", timeout=5)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._told.set()

    def answer(self, path: str, headers: dict[str, str]) -> int:
        self.requests.append(path)
        if path == "/silent":
            return 200
        assert self._told.wait(DEADLINE_S)
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
        self._told.set()
        for provider in (self._bank, self._shop):
            provider.shutdown()


@contextmanager
def open_service() -> Iterator[Service]:
    """Serve on a free port of loopback."""
    service = Service()

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = service.answer(self.path, dict(self.headers))
            body = b'{"state": "paid"}'
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
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
    """Return the address that stands before or after `name` in a first line."""
    found = re.search(rf"{re.escape(name)} (?:http://)?([\w.]+:\d+)", line) or re.search(
        rf"([\w.]+:\d+) \({re.escape(name)}\)", line
    )
    assert found, line
    return found[1]


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"never happened: {what}"
        threading.Event().wait(0.02)


def find_in_session(leader: int) -> set[int]:
    """The processes that are left of a session but its leader, whoever their parent is by now."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == leader and state != "Z":
            found.add(int(status.parent.name))
    return found - {leader}
