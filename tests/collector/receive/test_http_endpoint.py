from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from spanproof.collector.otlp.json_mapping import dump_json, render_message
from spanproof.collector.receive.http_endpoint import JSON, PROTOBUF
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACE_ID = "01" * 16


def connect(receiver: Receiver) -> httpx.Client:
    return httpx.Client(base_url=f"http://{receiver.http_address}", timeout=30)


@pytest.fixture
def client(receiver: Receiver) -> Iterator[httpx.Client]:
    with connect(receiver) as client:
        yield client


def post(client: httpx.Client, body: bytes, media_type: str = PROTOBUF, path: str = "/v1/traces", **headers: str):
    return client.post(path, content=body, headers={"content-type": media_type, **headers})


def encode(request, media_type: str) -> bytes:
    return request.SerializeToString() if media_type == PROTOBUF else dump_json(render_message(request)).encode()


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON, "Application/JSON; charset=utf-8"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", None])
def test_export(client: httpx.Client, store: Store, make_request, media_type: str, encoding: str | None) -> None:
    request = make_request(3)
    body = encode(request, media_type)
    headers = {"content-encoding": encoding} if encoding else {}
    answer = post(client, gzip.compress(body) if encoding == "gzip" else body, media_type, **headers)
    assert answer.status_code == 200
    if media_type == PROTOBUF:
        assert (answer.headers["content-type"], answer.content) == (PROTOBUF, b"")
    else:
        assert (answer.headers["content-type"], answer.json()) == (JSON, {})
    assert export_request(store, TRACE_ID).resource_spans == request.resource_spans


def test_numbers_in_quotes_are_accepted(client: httpx.Client, store: Store) -> None:
    span = {"traceId": TRACE_ID, "spanId": "02" * 8, "kind": "SPAN_KIND_SERVER", "flags": "1", "startTimeUnixNano": 1e3}
    values = {"a": {"doubleValue": "0.5"}, "b": {"doubleValue": "NaN"}, "c": {"intValue": "1e2"}, "d": None}
    span["attributes"] = [{"key": key, "value": value} for key, value in values.items()]
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    answer = post(client, body, JSON)
    assert (answer.status_code, answer.json()) == (200, {})
    (stored,) = export_request(store, TRACE_ID).resource_spans[0].scope_spans[0].spans
    assert (stored.kind, stored.flags, stored.start_time_unix_nano) == (2, 1, 1000)
    assert [str(each.value).strip() for each in stored.attributes] == [
        "double_value: 0.5",
        "double_value: nan",
        "int_value: 100",
        "",
    ]


def test_gzip_with_several_members_is_accepted(client: httpx.Client, store: Store, make_request) -> None:
    body = make_request().SerializeToString()
    packed = gzip.compress(body[:20]) + gzip.compress(body[20:])
    assert post(client, packed, **{"content-encoding": "gzip"}).status_code == 200
    assert export_request(store, TRACE_ID).resource_spans


def test_partial_success(client: httpx.Client, make_request) -> None:
    request = make_request(2)
    request.resource_spans[0].scope_spans[0].spans[1].span_id = b"\x01"
    message = "1 of 2 spans rejected: resourceSpans[0].scopeSpans[0].spans[1].spanId is 1 bytes long, not 8"
    answer = ExportTraceServiceResponse.FromString(post(client, encode(request, PROTOBUF)).content)
    assert (answer.partial_success.rejected_spans, answer.partial_success.error_message) == (1, message)
    assert post(client, encode(request, JSON), JSON).json() == {
        "partialSuccess": {"rejectedSpans": "1", "errorMessage": message}
    }


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs", "/v1/metrics"])
def test_undecodable_request_is_rejected(client: httpx.Client, path: str) -> None:
    answer = post(client, b"\xff", PROTOBUF, path)
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROTOBUF)
    status = Status.FromString(answer.content)
    assert status.code == 3
    assert status.message.endswith("cannot be decoded: not a well-formed protobuf message of this type")
    assert describe_violations(status) == [status.message]

    answer = post(client, b"[]", JSON, path)
    assert (answer.status_code, answer.headers["content-type"]) == (400, JSON)
    problem = "$: an object is expected, not an array"
    details = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"description": problem}],
    }
    assert answer.json() == {"code": 3, "message": problem, "details": [details]}


def describe_violations(status: Status) -> list[str]:
    (packed,) = status.details
    bad_request = BadRequest()
    assert packed.Unpack(bad_request)
    return [each.description for each in bad_request.field_violations]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"plain", "incorrect header check"),
        (gzip.compress(b"x", mtime=0)[:-1], "it ends too early"),
        (gzip.compress(b"x", mtime=0) + b"more", "incorrect header check"),
    ],
)
def test_invalid_gzip_is_rejected(client: httpx.Client, body: bytes, problem: str) -> None:
    answer = post(client, body, **{"content-encoding": "gzip"})
    assert answer.status_code == 400
    message = Status.FromString(answer.content).message
    assert message.startswith("the body is not gzip: ")
    assert problem in message


def test_truncated_request_is_rejected(client: httpx.Client, make_request, capfd) -> None:
    body = make_request().SerializeToString()
    assert {post(client, body[:length]).status_code for length in range(1, len(body))} == {400}
    assert post(client, body).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_wrong_type_method_or_path_is_rejected(client: httpx.Client) -> None:
    assert post(client, b"", "text/plain").status_code == 415
    assert client.post("/v1/traces").status_code == 415
    assert post(client, b"", **{"content-encoding": "br"}).status_code == 415
    for method in ("GET", "PUT", "DELETE"):
        answer = client.request(method, "/v1/traces")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert post(client, b"", path="/v1/trace").status_code == 404
    assert post(client, b"", path="/").status_code == 404


def test_too_large_request_is_rejected(store: Store, make_request) -> None:
    large = make_request(1_000)
    with (
        Receiver(store, "127.0.0.1:0", "127.0.0.1:0", ReceiverOptions(max_message_bytes=20_000)) as receiver,
        connect(receiver) as client,
    ):
        body = encode(large, PROTOBUF)
        packed = gzip.compress(body)
        assert len(packed) < 20_000 < len(body)
        for answer in (post(client, body), post(client, packed, **{"content-encoding": "gzip"})):
            assert answer.status_code == 413
            assert Status.FromString(answer.content).message.startswith("the request is larger than 20000 bytes")
        in_json = post(client, encode(large, JSON), JSON)
        assert (in_json.status_code, in_json.json()["code"]) == (413, 8)
        assert post(client, encode(make_request(2), PROTOBUF)).status_code == 200


def test_full_queue_sends_retry_delay(gated_store, make_request) -> None:
    body = make_request().SerializeToString()
    with (
        Receiver(gated_store, "127.0.0.1:0", "127.0.0.1:0", ReceiverOptions(max_bytes_in_flight=1)) as receiver,
        connect(receiver) as client,
        ThreadPoolExecutor(1) as executor,
    ):
        first = executor.submit(post, client, body)
        assert gated_store.arrived.wait(30)
        rejected = post(client, body)
        gated_store.gate.set()
        assert first.result(30).status_code == 200
    assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "1")
    status, retry = Status.FromString(rejected.content), RetryInfo()
    assert (status.code, status.message) == (14, f"the collector is busy: {len(body)} bytes of requests are held")
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.seconds == 1


def test_logs_get_partial_success(client: httpx.Client) -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add()
    answer = ExportLogsServiceResponse.FromString(post(client, request.SerializeToString(), path="/v1/logs").content)
    assert answer.partial_success.rejected_log_records == 1
    in_json = post(client, json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, {}]}]}]}).encode(), JSON,
                   "/v1/logs")  # fmt: skip
    assert in_json.json() == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "spanproof stores traces only"}
    }
