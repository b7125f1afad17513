"""`serve --trace-self`: the server's own work as spans, at another server, and only where that was asked for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, find_address, wait_until
from spanproof.tests.crashes.sender import make_request
from spanproof.tests.e2e.sink import Seen, Sink, open_sink
from spanproof.tests.ports import find_free_address, find_free_port

Starter = Callable[..., Running]
Command = Callable[..., Finished]
SERVE = ("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb")
ASKER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def sink() -> Iterator[Sink]:
    with open_sink() as sink:
        yield sink


def send(line: str, traces: int = 1) -> str:
    """Send spans to a server that said this; return the id of one trace."""
    body, ids = make_request(traces)
    url = f"http://{find_address(line, 'OTLP/HTTP')}/v1/traces"
    assert httpx.post(url, content=body, headers=PROTOBUF, trust_env=False).status_code == 200
    return ids[0].replace("-", "")


def get(line: str, path: str, **headers: str) -> int:
    return httpx.get(f"http://{find_address(line, 'API')}{path}", headers=headers, trust_env=False).status_code


def find(sink: Sink, name: str) -> list[Seen]:
    return [seen for seen in sink.all_spans() if seen.span.name == name]


def test_commits_derivations_and_requests_are_told(start: Starter, sink: Sink) -> None:
    line = start(*SERVE, "--trace-self", f"http://{sink.grpc_address}", **SOON).read_line()
    trace_id = send(line, 2)
    assert get(line, "/healthz") == 200
    assert get(line, f"/api/v1/traces/{trace_id}", traceparent=ASKER) == 200
    assert get(line, f"/api/v1/traces/{'0' * 32}") == 404

    asked, derived = sink.wait_for(ASKER[3:35], lambda seen: len(seen) == 2)
    assert (asked.span.name, asked.span.kind) == ("GET /api/v1/traces/{trace_id}", 2)
    assert asked.span.parent_span_id.hex() == ASKER[36:52]
    assert asked.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/api/v1/traces/{trace_id}",
        "url.path": f"/api/v1/traces/{trace_id}",
        "url.scheme": "http",
    }
    assert (derived.span.name, derived.span.parent_span_id) == ("derive", asked.span.span_id)
    assert derived.attributes == {"spanproof.traces": 2}
    (committed,) = find(sink, "commit")
    assert committed.attributes == {"spanproof.spans": 6}
    assert committed.span.end_time_unix_nano > committed.span.start_time_unix_nano
    assert {seen.service for seen in sink.all_spans()} == {"spanproof"}
    wait_until(lambda: len(find(sink, asked.span.name)) == 2, "the other request is told, too")
    assert not [seen for seen in sink.all_spans() if seen.attributes.get("url.path") == "/healthz"]


def test_another_spanproof_takes_them(start: Starter, tmp_path: Path) -> None:
    other = start("serve", *FREE_PORTS, "--api", FREE, "--db", "other.duckdb")
    endpoint = f"http://{find_address(other.read_line(), 'OTLP/gRPC')}"
    own = start(*SERVE, "--trace-self", "env", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    send(own.read_line())
    for running in (own, other):  # what is left to export is exported in the end
        running.stop()
        assert running.finish().code == 0
    with Store.open(tmp_path / "other.duckdb") as store, store.cursor() as cursor:
        assert cursor.execute("SELECT service, name FROM spans").fetchall() == [("spanproof", "commit")]


def test_nothing_is_told_and_no_sdk_loaded_unless_asked(start: Starter, sink: Sink) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{sink.grpc_address}", **SOON}
    running = start(*SERVE, **env)
    send(running.read_line())
    running.stop()
    assert running.finish().code == 0
    assert sink.all_spans() == []
    program = (
        "import sys, spanproof.api.cli.main, spanproof.api.server.server, spanproof.api.server.self_tracing_endpoint;"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 (that is meant)
def test_it_does_not_export_to_itself(spanproof: Command, own: str, host: str) -> None:
    port = find_free_port()
    url = f"http://{host}:{port}"
    base = ("serve", "--insecure-no-auth", "--otlp-grpc", f"{own}:{port}", "--otlp-http", FREE, "--api", FREE)
    refused = spanproof(*base, "--trace-self", url)
    assert refused == Finished(
        2, "", f"spanproof: --trace-self: {url} is this server; its traces have to go to another one\n"
    )
    base = ("serve", "--otlp-http", f"127.0.0.1:{port}", "--otlp-grpc", FREE, "--api", FREE)
    assert "is this server" in spanproof(*base, "--trace-self", f"http://127.0.0.1:{port}/").err


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:4317", "grpc://a:1", "http://", "http://a:x", "http://a:99999", "http://a/v1/traces", "http://u@a"],
)
def test_what_is_no_endpoint_is_refused(spanproof: Command, text: str) -> None:
    refused = spanproof(*SERVE, "--trace-self", text)
    wrong = f"--trace-self: {text!r} is no endpoint over gRPC; write one such as http://127.0.0.1:4317"
    assert refused == Finished(2, "", f"spanproof: {wrong}\n")


def test_a_variable_that_is_not_set_is_named(spanproof: Command) -> None:
    wrong = "spanproof: --trace-self env: OTEL_EXPORTER_OTLP_ENDPOINT is not set\n"
    assert spanproof(*SERVE, "--trace-self", "env") == Finished(2, "", wrong)


def test_nobody_there_to_take_them_holds_up_nothing(start: Starter) -> None:
    address = find_free_address()
    running = start(*SERVE, "--trace-self", f"http://{address}")
    line = running.read_line()
    for _ in range(5):
        send(line)
    began = time.monotonic()
    running.stop()
    ended = running.finish()
    assert (ended.code, time.monotonic() - began < 5) == (0, True)
    assert address in ended.err  # it says that it could not export


def test_without_its_packages_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from spanproof.api.cli.main import main;"
        f"sys.argv[1:] = {[*SERVE, '--trace-self', 'http://127.0.0.1:4317']!r}; main()"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("spanproof: --trace-self needs its extra packages (opentelemetry.sdk")
    assert ran.stderr.endswith(" is missing): pip install 'spanproof[telemetry]'\n")
