"""Requirements of the OTLP specification for servers, over real sockets; docs/otlp.md maps them to tests."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
    ExportProfilesServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from spanproof.collector.otlp.json_mapping import dump_json, render_message
from spanproof.collector.receive.http_endpoint import JSON, PROTOBUF
from spanproof.collector.receive.receiver import GRPC_ADDRESS, HTTP_ADDRESS, Receiver
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request
from spanproof.tests.collector.receive.raw_connection import call_grpc, send_http

TRACE_ID = "01" * 16
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def make_logs() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add()
    return request


def make_metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add().sum.data_points.add()
    return request


def make_profiles() -> ExportProfilesServiceRequest:
    request = ExportProfilesServiceRequest()
    request.resource_profiles.add().scope_profiles.add().profiles.add()
    return request


OTHER_SIGNALS: dict[str, tuple[str, str, Callable[[], Message], type[Message], str]] = {
    "logs": ("logs.v1.LogsService", "/v1/logs", make_logs, ExportLogsServiceResponse, "rejected_log_records"),
    "metrics": (
        "metrics.v1.MetricsService",
        "/v1/metrics",
        make_metrics,
        ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
    "profiles": (
        "profiles.v1development.ProfilesService",
        "/v1development/profiles",
        make_profiles,
        ExportProfilesServiceResponse,
        "rejected_profiles",
    ),
}


@pytest.fixture
def client(receiver: Receiver) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{receiver.http_address}", timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def channel(receiver: Receiver) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(receiver.grpc_address) as channel:
        yield channel


def post(client: httpx.Client, body: bytes, media_type: str = PROTOBUF, path: str = "/v1/traces", **headers: str):
    return client.post(path, content=body, headers={"content-type": media_type, **headers})


def count_spans(store: Store) -> int:
    with store.cursor() as cursor:
        ((count,),) = cursor.execute("SELECT count(*) FROM spans").fetchall()
    return count


# ## Responses


def test_default_ports_match_otlp() -> None:
    assert (GRPC_ADDRESS, HTTP_ADDRESS) == ("127.0.0.1:4317", "127.0.0.1:4318")


def test_success_response_has_no_partial_success(channel: grpc.Channel, client: httpx.Client, make_request) -> None:
    body = make_request().SerializeToString()
    answers = [channel.unary_unary(EXPORT)(body), post(client, body).content]
    for answer in answers:
        assert not ExportTraceServiceResponse.FromString(answer).HasField("partial_success")
    assert post(client, dump_json(render_message(make_request())).encode(), JSON).json() == {}


@pytest.mark.parametrize("signal", ["trace.v1.TraceService", *(service for service, *_ in OTHER_SIGNALS.values())])
def test_empty_request_succeeds_over_grpc(channel: grpc.Channel, signal: str) -> None:
    assert channel.unary_unary(f"/opentelemetry.proto.collector.{signal}/Export")(b"") == b""


@pytest.mark.parametrize("path", ["/v1/traces", *(path for _, path, *_ in OTHER_SIGNALS.values())])
def test_empty_request_succeeds_over_http(client: httpx.Client, path: str) -> None:
    answer = post(client, b"", path=path)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, PROTOBUF, b"")
    answer = post(client, b"{}", JSON, path)
    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, JSON, {})


@pytest.mark.parametrize("signal", OTHER_SIGNALS)
def test_other_signals_get_partial_success(channel: grpc.Channel, client: httpx.Client, signal: str) -> None:
    service, path, make, response, field = OTHER_SIGNALS[signal]
    body = make().SerializeToString()
    for answer in (
        channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export")(body),
        post(client, body, path=path).content,
    ):
        partial = response.FromString(answer).partial_success
        assert (getattr(partial, field), partial.error_message) == (1, "spanproof stores traces only")


def test_responses_stay_small(channel: grpc.Channel, client: httpx.Client, make_request) -> None:
    long = "k" * 1_000_000
    request = make_request(2)
    request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key=long).value.string_value = "cafe"
    body = request.SerializeToString().replace(b"cafe", b"caf\xe9")
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": -int("9" * 4000)}]}]}]}
    answers = [
        post(client, body),
        post(client, json.dumps(spans).encode(), JSON),
        post(client, b"", "x" * 8000),
        post(client, b"", path="/" + "x" * 8000),
        client.request("X" * 8000, "/v1/traces"),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 415, 404, 405]
    assert max(len(answer.content) for answer in answers) < 4096
    partial = ExportTraceServiceResponse.FromString(channel.unary_unary(EXPORT)(body)).partial_success
    assert partial.rejected_spans == 1
    assert partial.error_message.startswith(
        "1 of 2 spans rejected: resourceSpans[0].scopeSpans[0].spans[0].attributes["
    )
    assert partial.error_message.endswith("…")


# ## Rejections


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_errors_use_encoding_of_request(client: httpx.Client, media_type: str) -> None:
    answers = [
        post(client, b"\xff", media_type),
        post(client, b"", media_type, path="/v1/nothing"),
        client.put("/v1/traces", headers={"content-type": media_type}),
        post(client, b"", media_type, **{"content-encoding": "br"}),
    ]
    assert [answer.status_code for answer in answers] == [400, 404, 405, 415]
    for answer in answers:
        assert answer.headers["content-type"] == media_type
        message = Status.FromString(answer.content).message if media_type == PROTOBUF else answer.json()["message"]
        assert message


@pytest.mark.parametrize("media_type", ["text/plain", "application/protobuf", "application/x-www-form-urlencoded", ""])
def test_unknown_content_type_gets_accept_header(client: httpx.Client, media_type: str) -> None:
    answer = post(client, b"x", media_type)
    assert (answer.status_code, answer.headers["content-type"]) == (415, JSON)
    assert answer.headers["accept"] == "application/x-protobuf, application/json"
    assert answer.json()["message"].startswith("the content type must be application/x-protobuf or application/json")


def test_unknown_content_encoding_gets_accept_encoding_header(client: httpx.Client) -> None:
    for encoding in ("zstd", "deflate", "gzip, gzip", ""):
        answer = post(client, b"x", **{"content-encoding": encoding})
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")


@pytest.mark.parametrize("path", ["/", "/v1/trace", "/v1/traces/", "/v1/profiles", "/%ff"])
def test_unknown_path_names_otlp_paths(client: httpx.Client, path: str) -> None:
    answer = post(client, b"{}", JSON, path)
    assert answer.status_code == 404
    assert "send OTLP by POST to /v1/traces, /v1/logs, /v1/metrics, /v1development/profiles" in answer.json()["message"]


def test_unknown_grpc_method_is_unimplemented(receiver: Receiver) -> None:
    for path in (EXPORT.replace("Export", "Import"), "/nothing"):
        assert call_grpc(receiver.grpc_address, path, b"").headers["grpc-status"] == "12"


@pytest.mark.parametrize("encoding", ["zstd", "snappy"])
def test_unknown_grpc_compression_is_not_retryable(receiver: Receiver, store: Store, encoding: str) -> None:
    answer = call_grpc(
        receiver.grpc_address, EXPORT, b"\x28\xb5\x2f\xfd", compressed=True, headers={"grpc-encoding": encoding}
    )
    assert answer.headers["grpc-status"] in ("12", "13")  # neither is retryable
    assert "grpc-encoding" in answer.headers["grpc-message"]
    assert "google.rpc.retryinfo-bin" not in answer.headers
    assert count_spans(store) == 0


def test_grpc_response_names_supported_compression(receiver: Receiver, make_request) -> None:
    packed = gzip.compress(make_request().SerializeToString())
    answer = call_grpc(receiver.grpc_address, EXPORT, packed, compressed=True, headers={"grpc-encoding": "gzip"})
    assert answer.headers["grpc-status"] == "0"
    assert "gzip" in answer.headers["grpc-accept-encoding"]


@pytest.mark.parametrize(("message", "headers"), [(b"no gzip", {"grpc-encoding": "gzip"}), (b"", {})])
def test_wrong_grpc_compression_is_rejected(receiver: Receiver, message: bytes, headers) -> None:
    answer = call_grpc(receiver.grpc_address, EXPORT, message, compressed=True, headers=headers)
    assert answer.headers["grpc-status"] == "13"
    assert "google.rpc.retryinfo-bin" not in answer.headers


# ## Limits


def read_peak_mib() -> int:
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) // 1024


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_grpc_decompression_bomb_is_rejected(
    receiver: Receiver, channel: grpc.Channel, compression: grpc.Compression
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(EXPORT)(bytes(64 * 2**20 + 1), compression=compression)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert list(error.value.trailing_metadata()) == []


def test_http_decompression_bomb_is_rejected_early(client: httpx.Client) -> None:
    packed = gzip.compress(bytes(2**20)) * 4000
    before = read_peak_mib()
    answer = post(client, packed, **{"content-encoding": "gzip"})
    assert (answer.status_code, Status.FromString(answer.content).code) == (413, 8)
    assert read_peak_mib() - before < 400  # of 4000 decompressed


def test_default_limit_is_64_mib(client: httpx.Client) -> None:
    limit = 64 * 2**20
    body = ExportTraceServiceRequest()
    body.resource_spans.add().schema_url = "x" * (limit - 20)
    (resource,) = body.resource_spans
    resource.schema_url += "x" * (limit - body.ByteSize())
    assert body.ByteSize() == limit
    assert post(client, body.SerializeToString()).status_code == 200
    resource.schema_url += "x"
    assert post(client, body.SerializeToString()).status_code == 413


def test_chunked_body_beyond_limit_is_rejected(store: Store) -> None:
    with Receiver(store, "127.0.0.1:0", "127.0.0.1:0", ReceiverOptions(max_message_bytes=10_000)) as receiver:
        head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
        next_request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        answer = send_http(
            receiver.http_address, head + b"transfer-encoding: chunked\r\n\r\n", chunk * 50, b"0\r\n\r\n", next_request
        )
        statuses = re.findall(rb"HTTP/1.1 (\d+)", answer)
        assert statuses == [b"413", b"404"]  # the rest is read and dropped, and the connection stays open


def test_expect_continue_is_checked_before_body(receiver: Receiver) -> None:
    head = (
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\nexpect: 100-continue\r\n\r\n"
    )
    assert send_http(receiver.http_address, head % (10**9)).startswith(b"HTTP/1.1 413 ")
    assert send_http(receiver.http_address, head % 2, b"{}").startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


# ## Data


def test_unknown_fields_are_ignored(channel: grpc.Channel, store: Store, make_request) -> None:
    request = make_request()
    later = b"\xca\x3e\x05later"  # field 1001
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.MergeFromString(later)
    request.MergeFromString(later)
    assert later in span.SerializeToString()
    assert channel.unary_unary(EXPORT)(request.SerializeToString()) == b""
    assert export_request(store, TRACE_ID).resource_spans == make_request().resource_spans


def test_empty_values_are_kept(client: httpx.Client, store: Store, make_request) -> None:
    request = make_request()
    attributes = request.resource_spans[0].scope_spans[0].spans[0].attributes
    attributes.add(key="text").value.string_value = ""
    attributes.add(key="number").value.int_value = 0
    attributes.add(key="fraction").value.double_value = 0.0
    attributes.add(key="switch").value.bool_value = False
    attributes.add(key="bytes").value.bytes_value = b""
    attributes.add(key="list").value.array_value.SetInParent()
    attributes.add(key="map").value.kvlist_value.SetInParent()
    attributes.add(key="nothing").value.SetInParent()
    for body, media_type in (
        (request.SerializeToString(), PROTOBUF),
        (dump_json(render_message(request)).encode(), JSON),
    ):
        assert post(client, body, media_type).status_code == 200
    first, second = export_request(store, TRACE_ID).resource_spans[0].scope_spans[0].spans
    assert first == second == request.resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize("levels", [60, 5_000, 200_000])
def test_deep_nesting_is_rejected_and_server_survives(
    channel: grpc.Channel, client: httpx.Client, store: Store, make_request, levels: int
) -> None:
    value = b""
    for _ in range(min(levels, 5_000)):  # ArrayValue.values of AnyValue.array_value
        value = b"\x2a" + _length(b"\x0a" + _length(value))
    span = make_request().resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    nested = span + b"\x4a" + _length(b"\x0a\x01k\x12" + _length(value))
    body = b"\x0a" + _length(b"\x12" + _length(b"\x12" + _length(nested)))
    partial = ExportTraceServiceResponse.FromString(channel.unary_unary(EXPORT)(body)).partial_success
    assert (partial.rejected_spans, "nested too deeply" in partial.error_message) == (1, True)
    opening = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"k","value":'
    deep = opening + b'{"arrayValue":{"values":[' * levels + b"]}}" * levels + b"}]}]}]}]}"
    assert post(client, deep, JSON).status_code == 400
    groups = b"\x0b" * levels  # groups of unknown fields can be nested, too
    assert post(client, groups).status_code == 400
    assert channel.unary_unary(EXPORT)(make_request().SerializeToString()) == b""
    assert count_spans(store) == 1


def _length(content: bytes) -> bytes:
    length, prefix = len(content), b""
    while length > 127:
        prefix += bytes([length & 127 | 128])
        length >>= 7
    return prefix + bytes([length]) + content


# ## Connections


def test_connection_serves_consecutive_requests(receiver: Receiver) -> None:
    json = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    text = json.replace(b"application/json", b"text/plain")
    last = json.replace(b"host: x", b"host: x\r\nconnection: close")
    answer = send_http(receiver.http_address, json * 3, text, last)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * 3 + [b"415", b"200"]


def test_one_port_accepts_both_encodings(client: httpx.Client, store: Store, make_request) -> None:
    for number in range(4):
        request = make_request(trace_id=bytes([number + 1]) * 16)
        body = dump_json(render_message(request)).encode() if number % 2 else request.SerializeToString()
        assert post(client, body, JSON if number % 2 else PROTOBUF).status_code == 200
    assert count_spans(store) == 4


def test_concurrent_requests_are_all_answered(
    receiver: Receiver, client: httpx.Client, store: Store, make_request
) -> None:
    bodies = [make_request(3, trace_id=os.urandom(16)).SerializeToString() for _ in range(200)]
    with grpc.insecure_channel(receiver.grpc_address) as channel:
        export = channel.unary_unary(EXPORT)
        pending = [export.future(body) for body in bodies]
        with ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(lambda body: post(client, body).status_code, bodies))
        assert [each.result(30) for each in pending] == [b""] * 200
    assert statuses == [200] * 200
    assert count_spans(store) == 1200
