"""``spanproof serve``: addresses, health checks, traces, and shutdown."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, Service, find_address
from spanproof.tests.ports import find_free_address

Command = Callable[..., Finished]
Starter = Callable[..., Running]
SERVE = ("serve", *FREE_PORTS, "--api", FREE)


@pytest.fixture
def server(start: Starter) -> Running:
    return start(*SERVE, "--db", "spans.duckdb")


@pytest.fixture
def first_line(server: Running) -> str:
    return server.read_line()


@pytest.fixture
def api(first_line: str) -> str:
    return f"http://{find_address(first_line, 'API')}"


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=10)


def test_first_line_names_addresses_and_signal_stops_server(server: Running, first_line: str) -> None:
    shape = (
        r"spanproof: OTLP/gRPC 127.0.0.1:\d+  OTLP/HTTP 127.0.0.1:\d+  API http://127.0.0.1:\d+  store spans.duckdb\n"
    )
    assert re.fullmatch(shape, first_line)
    assert ":0 " not in first_line
    server.signal(signal.SIGTERM)
    assert server.finish() == Finished(0, first_line, "")


def test_ctrl_c_stops_cold_started_server(start: Starter) -> None:
    server = start(*SERVE, "--db", "spans.duckdb", cold=True)
    first_line = server.read_line()
    server.signal(signal.SIGINT)
    assert server.finish() == Finished(0, first_line, "")


def test_health_endpoints(api: str) -> None:
    assert get(f"{api}/healthz").json() == {"status": "ok"}
    assert get(f"{api}/readyz").json() == {"status": "ready"}
    assert get(f"{api}/openapi.json").json()["openapi"].startswith("3.1")


def test_trace_is_read_over_http_and_drawn(api: str, first_line: str, spanproof: Command, service: Service) -> None:
    service.export_to(find_address(first_line, "OTLP/HTTP"))
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    httpx.get(
        f"{service.base_url}/hello", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}, trust_env=False
    )
    document = get(f"{api}/api/v1/traces/{trace_id}")
    assert document.status_code == 200
    assert [(span["service"], span["kind"], span["last_at"]) for span in document.json()["spans"]] == [
        ("shop", "server", []),
        ("shop", "client", [True]),
        ("bank", "server", [True, True]),
    ]
    drawn = spanproof("trace", trace_id, "--server", api)
    assert drawn.code == 0, drawn
    assert [line.split()[:2] for line in drawn.out.splitlines()] == [["shop", "GET"], ["└", "shop"], ["└", "bank"]]


def test_unknown_trace_returns_problem(api: str) -> None:
    answer = get(f"{api}/api/v1/traces/{'0' * 31}1")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json() == {
        "title": "no such trace",
        "status": 404,
        "detail": f"no span of trace {'0' * 31}1 is stored",
    }


@pytest.mark.parametrize("trace_id", ["abc", "g" * 32, "0" * 33])
def test_invalid_trace_id_returns_problem(api: str, trace_id: str) -> None:
    answer = get(f"{api}/api/v1/traces/{trace_id}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["status"] == 422


def test_trace_command_reports_unknown_trace_and_unreachable_server(api: str, spanproof: Command) -> None:
    ran = spanproof("trace", "1" * 32, "--server", api)
    assert (ran.code, ran.err) == (1, f"spanproof: no span of trace {'1' * 32} is stored\n")
    unreachable = f"http://{find_free_address()}"
    for url in (unreachable, "nonsense"):
        ran = spanproof("trace", "1" * 32, "--server", url)
        assert ran.code == 2
        assert re.fullmatch(
            rf"spanproof: no server answers at {url} \(.*\); start one with `spanproof serve`\n", ran.err
        )


def test_acknowledged_spans_survive_restart(server: Running, first_line: str, start: Starter, service: Service) -> None:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    resource.scope_spans.add().spans.add(
        trace_id=b"\x01" * 16, span_id=b"\x02" * 8, name="kept", start_time_unix_nano=1, end_time_unix_nano=2
    )
    answer = httpx.post(
        f"http://{find_address(first_line, 'OTLP/HTTP')}/v1/traces",
        content=request.SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
        trust_env=False,
    )
    assert answer.status_code == 200
    server.signal(signal.SIGKILL)
    assert server.finish().code == -signal.SIGKILL
    again = start(*SERVE, "--db", "spans.duckdb")
    api = find_address(again.read_line(), "API")
    assert get(f"http://{api}/api/v1/traces/{'01' * 16}").json()["spans"][0]["name"] == "kept"


@pytest.mark.parametrize("option", ["--otlp-grpc", "--otlp-http", "--api"])
def test_open_address_requires_option(spanproof: Command, option: str) -> None:
    ran = spanproof(*SERVE, option, "0.0.0.0:0")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"spanproof: 0\.0\.0\.0:0 can be reached .*--insecure-no-auth.*\n", ran.err)


def test_open_address_with_option_is_accepted(start: Starter) -> None:
    running = start(*SERVE, "--otlp-http", "0.0.0.0:0", "--insecure-no-auth", "--db", ":memory:")
    assert "OTLP/HTTP 0.0.0.0:" in running.read_line()
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0


@pytest.mark.parametrize(
    ("option", "address"), [("--api", "nonsense"), ("--otlp-http", "nonsense"), ("--api", "127.0.0.1:99999")]
)
def test_invalid_address_is_rejected(spanproof: Command, option: str, address: str) -> None:
    ran = spanproof(*SERVE, option, address)
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"spanproof: .*\n", ran.err)


def test_second_server_on_same_store_names_first(server: Running, first_line: str, spanproof: Command) -> None:
    ran = spanproof(*SERVE, "--db", "spans.duckdb")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"spanproof: spans.duckdb is in use by process {server.pid}; stop it or name another file\n"


def test_second_server_on_same_address_is_rejected(api: str, spanproof: Command) -> None:
    address = api.removeprefix("http://")
    ran = spanproof(*SERVE, "--api", address, "--db", "other.duckdb")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(rf"spanproof: {address} is in use; .*\n", ran.err)
