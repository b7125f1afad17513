from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanproof.collector.otlp.json_mapping import InvalidJson, json_to_protobuf, parse_message, render_message


def parse_span(span: dict[str, object]) -> Span:
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    return ExportTraceServiceRequest.FromString(json_to_protobuf(body)).resource_spans[0].scope_spans[0].spans[0]


def parse_value(value: object) -> AnyValue:
    message = AnyValue()
    parse_message(value, message)
    return message


def test_ids_are_case_insensitive_hex() -> None:
    span = parse_span({"traceId": "5B8EFFF798038103D269B633813fc60c", "spanId": "eee19B7EC3C1B174", "parentSpanId": ""})
    assert span.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert span.span_id.hex() == "eee19b7ec3c1b174"
    assert span.parent_span_id == b""


def test_integers_are_numbers_or_strings() -> None:
    span = parse_span({"startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": 1544712661000000000, "kind": 2})
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1544712660000000000, 1544712661000000000)
    assert parse_value({"intValue": "-5"}).int_value == parse_value({"intValue": -5.0}).int_value == -5


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1000.0, 1000), ("1e3", 1000), ("1.0", 1), ("-0", 0), ("9223372036854775807", 2**63 - 1), ("12.5e1", 125)],
)
def test_integers_may_be_written_as_numbers_of_json(value: object, expected: int) -> None:
    assert parse_value({"intValue": value}).int_value == expected
    if expected < 2**32:
        assert parse_span({"flags": value, "droppedEventsCount": value}).flags == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("1.5", 1.5), ("-2", -2.0), ("1e3", 1000.0), (3, 3.0), ("Infinity", float("inf"))]
)
def test_doubles_may_be_in_quotes(value: object, expected: float) -> None:
    assert parse_value({"doubleValue": value}).double_value == expected


def test_enums_may_be_names() -> None:
    span = parse_span({"kind": "SPAN_KIND_SERVER", "status": {"code": "STATUS_CODE_ERROR"}})
    assert (span.kind, span.status.code) == (2, 2)


def test_null_means_absent() -> None:
    value = {"stringValue": None, "intValue": "3", "doubleValue": None}
    span = parse_span({"kind": None, "status": None, "attributes": [{"key": "k", "value": value}, {"key": "n"}]})
    assert (span.kind, span.attributes[0].value.int_value, span.HasField("status")) == (0, 3, False)
    assert parse_span({"attributes": [{"key": "k", "value": None}]}).attributes[0].value == AnyValue()


def test_unknown_keys_and_nulls_are_ignored() -> None:
    # keys in any other spelling are unknown
    assert (
        parse_span({"trace_id": "xx", "TraceId": "xx", "what": {"traceId": 5}, "name": None, "events": None}) == Span()
    )


def test_empty_values_are_set() -> None:
    for key, value in {
        "stringValue": "",
        "boolValue": False,
        "intValue": 0,
        "doubleValue": 0,
        "arrayValue": {},
    }.items():
        assert parse_value({key: value}).WhichOneof("value") is not None
    assert parse_value({}).WhichOneof("value") is None


@pytest.mark.parametrize("text", ["/+8=", "/+8", "_-8=", "_-8"])
def test_bytes_accept_both_base64_alphabets(text: str) -> None:
    assert parse_value({"bytesValue": text}).bytes_value == b"\xff\xef"


def test_special_doubles_are_strings() -> None:
    assert parse_value({"doubleValue": "-Infinity"}).double_value == float("-inf")
    assert render_message(AnyValue(double_value=float("nan"))) == {"doubleValue": "NaN"}
    assert render_message(AnyValue(double_value=float("inf"))) == {"doubleValue": "Infinity"}
    assert render_message(AnyValue(double_value=float("-inf"))) == {"doubleValue": "-Infinity"}


def test_metrics_are_converted() -> None:
    body = b"""{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"exponentialHistogram":{"dataPoints":[
        {"scale":-3,"count":"7","positive":{"offset":1,"bucketCounts":["1","2"]}}]}}]}]}]}"""
    request = ExportMetricsServiceRequest.FromString(json_to_protobuf(body, ExportMetricsServiceRequest))
    (point,) = request.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points
    assert (point.scale, point.count, list(point.positive.bucket_counts)) == (-3, 7, [1, 2])


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        ({"traceId": "zz"}, "traceId: hex digits are expected, two for each byte"),
        ({"traceId": "abc"}, "traceId: hex digits are expected, two for each byte"),
        ({"spanId": 5}, "spanId: a string is expected, not a number"),
        ({"kind": "SERVER"},
         "kind: 'SERVER' is not one of SPAN_KIND_UNSPECIFIED, SPAN_KIND_INTERNAL, SPAN_KIND_SERVER, SPAN_KIND_CLIENT,"
         " SPAN_KIND_PRODUCER, SPAN_KIND_CONSUMER"),
        ({"kind": "2"},
         "kind: '2' is not one of SPAN_KIND_UNSPECIFIED, SPAN_KIND_INTERNAL, SPAN_KIND_SERVER, SPAN_KIND_CLIENT,"
         " SPAN_KIND_PRODUCER, SPAN_KIND_CONSUMER"),
        ({"kind": True}, "kind: an integer is expected, not a boolean"),
        ({"kind": 2**31}, "kind: 2147483648 is out of range; the range is -2147483648 to 2147483647"),
        ({"startTimeUnixNano": "-1"}, "startTimeUnixNano: -1 is out of range; the range is 0 to 18446744073709551615"),
        ({"startTimeUnixNano": 1.5}, "startTimeUnixNano: an integer is expected, not a number"),
        ({"startTimeUnixNano": " 1"}, "startTimeUnixNano: an integer is expected, not a string"),
        ({"startTimeUnixNano": "01"}, "startTimeUnixNano: an integer is expected, not a string"),
        ({"startTimeUnixNano": "1.5"}, "startTimeUnixNano: an integer is expected, not a string"),
        ({"startTimeUnixNano": "1e999999999"}, "startTimeUnixNano: an integer is expected, not a string"),
        ({"flags": "4294967296"}, "flags: 4294967296 is out of range; the range is 0 to 4294967295"),
        ({"name": ["x"]}, "name: a string is expected, not an array"),
        ({"name": "\ud800"}, "name: an unpaired surrogate is not valid text"),
        ({"events": {}}, "events: an array is expected, not an object"),
        ({"events": [{}, 1]}, "events[1]: an object is expected, not a number"),
        ({"events": [None]}, "events[0]: an object is expected, not null"),
        ({"attributes": [{"key": "k", "value": {"boolValue": 1}}]},
         "attributes[0].value.boolValue: true or false is expected, not a number"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": "1,5"}}]},
         "attributes[0].value.doubleValue: a number is expected, not a string"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": 10**400}}]},
         "attributes[0].value.doubleValue: the number does not fit a double"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": "1e400"}}]},
         "attributes[0].value.doubleValue: the number does not fit a double"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": "nan"}}]},
         "attributes[0].value.doubleValue: a number is expected, not a string"),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "?"}}]},
         "attributes[0].value.bytesValue: base64 is expected"),
        ({"attributes": [{"key": "k", "value": {"intValue": 1, "stringValue": "x"}}]},
         "attributes[0].value.stringValue: a value can be of one type only"),
    ],
)  # fmt: skip
def test_error_contains_path(span: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidJson) as error:
        parse_span(span)
    assert str(error.value) == f"resourceSpans[0].scopeSpans[0].spans[0].{problem}"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "$: not JSON: Expecting value"),
        (b"[]", "$: an object is expected, not an array"),
        (b'{"resourceSpans": [NaN]}', "$: NaN is not JSON"),
        (b'{"x": "\xff"}', "$: not JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "$: nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "$: not JSON: Exceeds the limit"),
    ],
)
def test_invalid_json_is_rejected(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidJson) as error:
        json_to_protobuf(body)
    assert str(error.value).startswith(problem)


def test_nesting_is_bounded() -> None:
    value: dict[str, object] = {}
    for _ in range(60):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(InvalidJson, match="nested more than 100 messages deep"):
        parse_span({"attributes": [{"key": "k", "value": value}]})
