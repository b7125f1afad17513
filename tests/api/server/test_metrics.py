"""``/metrics`` after valid, partially valid and invalid requests."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from spanproof.collector.receive.addresses import split_address
from spanproof.tests.command import FREE, FREE_PORTS, Running, find_address

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Served:
    """A server and its metrics."""

    running: Running
    grpc: str
    http: str
    api: str

    def post(self, content: bytes, path: str = "/v1/traces", **headers: str) -> int:
        return httpx.post(f"http://{self.http}{path}", content=content, headers=headers, trust_env=False).status_code

    def call(self, content: bytes, *metadata: tuple[str, str]) -> grpc.StatusCode:
        with grpc.insecure_channel(self.grpc) as channel:
            try:
                channel.unary_unary(EXPORT)(content, timeout=10, metadata=metadata)
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    def read(self, **headers: str) -> Counts:
        answer = httpx.get(f"http://{self.api}/metrics", headers=headers, trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


Counts = dict[tuple[str, ...], float]


@pytest.fixture
def serve(start: Callable[..., Running]) -> Callable[..., Served]:
    def serve(*arguments: object) -> Served:
        running = start("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb", *arguments)
        line = running.read_line()
        return Served(running, *(find_address(line, name) for name in ("gRPC", "HTTP", "API")))

    return serve


def make_request(*ids: bytes, service: bytes = b"shop") -> bytes:
    """Return an export request of one trace with these span ids."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service.decode()
    scope = resource_spans.scope_spans.add()
    for span_id in ids:
        scope.spans.add(
            trace_id=b"\1" * 16, span_id=span_id, name="GET /", start_time_unix_nano=1, end_time_unix_nano=2
        )
    return request.SerializeToString()


GOOD, SHORT, ZERO = b"\2" * 8, b"\2" * 7, bytes(8)


def requests(counts: Counts) -> dict[tuple[str, ...], float]:
    """Return the counts of requests by outcome, signal and transport."""
    return {key[1:]: value for key, value in counts.items() if key[0] == "spanproof_requests_total"}


def test_spans_are_counted_by_outcome(serve: Callable[..., Served]) -> None:
    served = serve()
    before = served.read()
    assert before["spanproof_spans_received_total",] == before["spanproof_spans_stored",] == 0

    assert served.call(make_request(*(bytes([n]) * 8 for n in range(1, 6)))) is grpc.StatusCode.OK
    assert served.post(make_request(GOOD, SHORT, ZERO), **PROTOBUF) == 200
    late = ExportTraceServiceRequest.FromString(make_request(GOOD))
    late.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano = 2**64 - 1
    broken = make_request(GOOD).replace(b"GET /", b"GET \xff")
    nowhere = make_request(GOOD, GOOD, service=b"malformed").replace(b"malformed", b"malf\xffrmed")
    for body in (late.SerializeToString(), broken, nowhere):
        assert served.post(body, **PROTOBUF) == 200

    counts = served.read()
    assert counts["spanproof_spans_received_total",] == 12
    assert counts["spanproof_spans_accepted_total",] == 6
    assert {key[1]: value for key, value in counts.items() if key[0] == "spanproof_spans_rejected_total"} == {
        "invalid_id": 2,
        "invalid_time": 1,
        "invalid_utf8": 3,
    }
    assert counts["spanproof_spans_stored",] == 6
    assert counts["spanproof_commit_seconds_count",] == 2  # the other requests had no valid span
    assert 0 < counts["spanproof_commit_seconds_sum",] < 10
    assert counts["spanproof_commit_seconds_bucket", "+Inf"] == 2
    assert counts["spanproof_queue_requests",] == counts["spanproof_queue_bytes",] == 0
    assert requests(counts) == {("ok", "traces", "grpc"): 1, ("partial", "traces", "http"): 4}


def test_requests_are_counted_by_outcome(serve: Callable[..., Served]) -> None:
    served = serve("--max-message-bytes", "2000")
    assert served.post(make_request(GOOD), **PROTOBUF) == 200
    assert served.post(b"{", **JSON) == 400
    assert served.post(b"\xff", **PROTOBUF) == 400
    assert served.post(b"{}", **{"content-type": "text/plain"}) == 415
    assert served.post(b"{}", **JSON, **{"content-encoding": "zstd"}) == 415
    assert served.post(bytes(2001), **PROTOBUF) == 413
    assert served.post(b"{}", "/v1/logs", **JSON) == 200
    assert served.post(b"{}", "/v2/traces", **JSON) == 404
    assert httpx.get(f"http://{served.http}/v1/metrics", trust_env=False).status_code == 405
    with socket.create_connection(split_address(served.http), 10) as connection:
        connection.sendall(b"this is not HTTP\r\n\r\n")
        assert b" 400 " in connection.makefile("rb").readline()
    assert served.call(b"\xff") is grpc.StatusCode.INVALID_ARGUMENT
    assert requests(served.read()) == {
        ("ok", "traces", "http"): 1,
        ("invalid_argument", "traces", "http"): 2,
        ("unimplemented", "traces", "http"): 2,
        ("resource_exhausted", "traces", "http"): 1,
        ("ok", "logs", "http"): 1,
        ("not_found", "none", "http"): 1,
        ("invalid_argument", "none", "http"): 1,
        ("unimplemented", "metrics", "http"): 1,
        ("invalid_argument", "traces", "grpc"): 1,
    }


def test_derivations_and_store_size_are_reported(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve()
    assert served.call(make_request(GOOD, GOOD)) is grpc.StatusCode.OK
    before = served.read()
    assert (before["spanproof_spans_stored",], before["spanproof_traces_derived_total",]) == (2, 0)
    assert httpx.get(f"http://{served.api}/api/v1/traces/{'01' * 16}", trust_env=False).status_code == 200
    after = served.read()
    assert (after["spanproof_spans_stored",], after["spanproof_traces_derived_total",]) == (1, 1)
    assert after["spanproof_derive_seconds_count",] == 1
    assert 0 < after["spanproof_derive_seconds_sum",] < 10
    files = [tmp_path / "spans.duckdb", tmp_path / "spans.duckdb.wal"]
    assert after["spanproof_store_size_bytes",] == sum(path.stat().st_size for path in files)
    assert after["process_resident_memory_bytes",] > 2**20


def test_metrics_require_a_token(serve: Callable[..., Served], tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("shop-1\n")
    served = serve("--token-file", tokens)
    assert httpx.get(f"http://{served.api}/metrics", trust_env=False).status_code == 401
    assert served.post(b"{}", **JSON) == 401
    assert served.post(b"{}", "/nowhere", **JSON) == 401
    assert served.call(b"") is grpc.StatusCode.UNAUTHENTICATED
    assert served.call(b"", ("authorization", "Bearer shop-1")) is grpc.StatusCode.OK
    assert requests(served.read(authorization="Bearer shop-1")) == {
        ("unauthenticated", "traces", "http"): 1,
        ("unauthenticated", "none", "http"): 1,
        ("unauthenticated", "traces", "grpc"): 1,
        ("ok", "traces", "grpc"): 1,
    }


def test_openmetrics_is_served_on_request(serve: Callable[..., Served]) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = httpx.get(f"http://{serve().api}/metrics", headers=accept, trust_env=False)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
