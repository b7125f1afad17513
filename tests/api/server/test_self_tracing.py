"""`serve --trace-self`: spans of the server's own work, exported to another server."""

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
from spanproof.tests.e2e.sink import ReceivedSpan, Sink, open_sink
from spanproof.tests.ports import find_free_address, find_free_port

Starter = Callable[..., Running]
Command = Callable[..., Finished]
SERVE = ("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def sink() -> Iterator[Sink]:
    with open_sink() as sink:
        yield sink


def send(line: str, traces: int = 1) -> str:
    """Send spans to the server that printed `line`; return the id of one trace."""
    body, ids = make_request(traces)
    url = f"http://{find_address(line, 'OTLP/HTTP')}/v1/traces"
    assert httpx.post(url, content=body, headers=PROTOBUF, trust_env=False).status_code == 200
    return ids[0].replace("-", "")


def get(line: str, path: str, **headers: str) -> int:
    return httpx.get(f"http://{find_address(line, 'API')}{path}", headers=headers, trust_env=False).status_code


def find(sink: Sink, name: str) -> list[ReceivedSpan]:
    return [received for received in sink.all_spans() if received.span.name == name]


def test_commits_derivations_and_requests_are_traced(start: Starter, sink: Sink) -> None:
    line = start(*SERVE, "--trace-self", f"http://{sink.grpc_address}", **SOON).read_line()
    trace_id = send(line, 2)
    assert get(line, "/healthz") == 200
    assert get(line, f"/api/v1/traces/{trace_id}", traceparent=TRACEPARENT) == 200
    assert get(line, f"/api/v1/traces/{'0' * 32}") == 404

    request, derived = sink.wait_for(TRACEPARENT[3:35], lambda spans: len(spans) == 2)
    assert (request.span.name, request.span.kind) == ("GET /api/v1/traces/{trace_id}", 2)
    assert request.span.parent_span_id.hex() == TRACEPARENT[36:52]
    assert request.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/api/v1/traces/{trace_id}",
        "url.path": f"/api/v1/traces/{trace_id}",
        "url.scheme": "http",
    }
    assert (derived.span.name, derived.span.parent_span_id) == ("derive", request.span.span_id)
    assert derived.attributes == {"spanproof.traces": 2}
    (commit,) = find(sink, "commit")
    assert commit.attributes == {"spanproof.spans": 6}
    assert commit.span.end_time_unix_nano > commit.span.start_time_unix_nano
    assert {received.service for received in sink.all_spans()} == {"spanproof"}
    wait_until(lambda: len(find(sink, request.span.name)) == 2, "the other request is traced")
    assert not [received for received in sink.all_spans() if received.attributes.get("url.path") == "/healthz"]


def test_another_spanproof_receives_the_spans(start: Starter, tmp_path: Path) -> None:
    other = start("serve", *FREE_PORTS, "--api", FREE, "--db", "other.duckdb")
    endpoint = f"http://{find_address(other.read_line(), 'OTLP/gRPC')}"
    own = start(*SERVE, "--trace-self", "env", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    send(own.read_line())
    for running in (own, other):  # the remaining spans are exported at the end
        running.stop()
        assert running.finish().code == 0
    with Store.open(tmp_path / "other.duckdb") as store, store.cursor() as cursor:
        assert cursor.execute("SELECT service, name FROM spans").fetchall() == [("spanproof", "commit")]


def test_sdk_is_not_loaded_without_option(start: Starter, sink: Sink) -> None:
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
@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 (intended)
def test_server_does_not_export_to_itself(spanproof: Command, own: str, host: str) -> None:
    port = find_free_port()
    url = f"http://{host}:{port}"
    base = ("serve", "--insecure-no-auth", "--otlp-grpc", f"{own}:{port}", "--otlp-http", FREE, "--api", FREE)
    refused = spanproof(*base, "--trace-self", url)
    assert refused == Finished(
        2, "", f"spanproof: --trace-self: {url} is this server; its own traces need another endpoint\n"
    )
    base = ("serve", "--otlp-http", f"127.0.0.1:{port}", "--otlp-grpc", FREE, "--api", FREE)
    assert "is this server" in spanproof(*base, "--trace-self", f"http://127.0.0.1:{port}/").err


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1:4317", "grpc://a:1", "http://", "http://a:x", "http://a:99999", "http://a/v1/traces", "http://u@a"],
)
def test_invalid_endpoint_is_rejected(spanproof: Command, text: str) -> None:
    refused = spanproof(*SERVE, "--trace-self", text)
    wrong = f"--trace-self: {text!r} is not an OTLP/gRPC endpoint; write one such as http://127.0.0.1:4317"
    assert refused == Finished(2, "", f"spanproof: {wrong}\n")


def test_unset_variable_is_named(spanproof: Command) -> None:
    wrong = "spanproof: --trace-self env: OTEL_EXPORTER_OTLP_ENDPOINT is not set\n"
    assert spanproof(*SERVE, "--trace-self", "env") == Finished(2, "", wrong)


def test_unreachable_endpoint_does_not_delay_shutdown(start: Starter) -> None:
    address = find_free_address()
    running = start(*SERVE, "--trace-self", f"http://{address}")
    line = running.read_line()
    for _ in range(5):
        send(line)
    began = time.monotonic()
    running.stop()
    ended = running.finish()
    assert (ended.code, time.monotonic() - began < 5) == (0, True)
    assert address in ended.err  # the failed export is logged
