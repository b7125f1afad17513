from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from spanproof.collector.otlp.decoder import Decoder, ExportResult, UndecodableRequest
from spanproof.collector.otlp.descriptor import MalformedMessage

INVALID_UTF8 = b"caf\xe9"


def decode(*requests: ExportTraceServiceRequest):
    return Decoder().decode([request.SerializeToString() for request in requests])


def put_invalid_utf8(request: ExportTraceServiceRequest) -> bytes:
    """Replace `cafe` by Latin-1 `café`, which has the same length, as a careless sender would."""
    return request.SerializeToString().replace(b"cafe", INVALID_UTF8)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (AnyValue(string_value="x"), "s", "x"),
        (AnyValue(string_value=""), "s", ""),
        (AnyValue(string_value="\x01x"), "s", "\x01s\x01x"),
        (AnyValue(bool_value=True), "b", "true"),
        (AnyValue(bool_value=False), "b", "false"),
        (AnyValue(int_value=0), "i", "0"),
        (AnyValue(int_value=-(2**63)), "i", "-9223372036854775808"),
        (AnyValue(double_value=0.0), "d", "0"),
        (AnyValue(double_value=0.1), "d", "0.1"),
        (AnyValue(double_value=float("nan")), "d", None),
        (AnyValue(double_value=float("inf")), "d", "inf"),
        (AnyValue(bytes_value=b""), "y", "\x01y"),
        (AnyValue(bytes_value=b"\xff\x00"), "y", "\x01y/wA="),
        (AnyValue(array_value=ArrayValue()), "a", "\x01a[]"),
        (
            AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="é"), AnyValue(int_value=1), AnyValue()])),
            "a",
            '\x01a[{"stringValue":"é"},{"intValue":"1"},{}]',
        ),
        (
            AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=AnyValue(bool_value=False))])),
            "k",
            '\x01k[{"key":"k","value":{"boolValue":false}}]',
        ),
        (AnyValue(), "n", None),
    ],
)
def test_attribute_kinds(make_request, value: AnyValue, kind: str, text: str | None) -> None:
    attributes = (KeyValue(key="before", value=AnyValue(string_value="b")), KeyValue(key="it", value=value))
    (span,) = decode(make_request(attributes=attributes)).spans.to_pylist()
    assert span["attributes"] == {"keys": ["before", "it"], "texts": ["b", text]}
    assert span["attribute_kinds"] == f"s{kind}"


def test_attribute_without_value_has_kind_n(make_request) -> None:
    (span,) = decode(make_request(attributes=(KeyValue(key="k"),))).spans.to_pylist()
    assert (span["attributes"], span["attribute_kinds"]) == ({"keys": ["k"], "texts": [None]}, "n")


def test_last_attribute_with_duplicate_key_is_kept(make_request) -> None:
    pairs = [("a", 1), ("b", 2), ("a", 3), ("c", 4)]
    duplicate = make_request(attributes=tuple(KeyValue(key=key, value=AnyValue(int_value=n)) for key, n in pairs))
    decoded = decode(make_request(), duplicate, make_request(2, attributes=(KeyValue(key="a"),)))
    attributes = [span["attributes"] for span in decoded.spans.to_pylist()]
    assert [list(zip(each["keys"], each["texts"], strict=True)) for each in attributes] == [
        [],
        [("b", "2"), ("a", "3"), ("c", "4")],
        [("a", None)],
        [("a", None)],
    ]
    assert decoded.spans["attribute_kinds"].to_pylist() == ["", "iii", "n", "n"]


def invalidate_name(span) -> None:
    span.name = "cafe"


def invalidate_key(span) -> None:
    span.attributes.add(key="cafe").value.int_value = 1


def invalidate_value(span) -> None:
    span.attributes.add(key="k").value.string_value = "cafe"


def invalidate_nested_value(span) -> None:
    span.attributes.add(key="k").value.array_value.values.add(string_value="cafe")


def invalidate_trace_state(span) -> None:
    span.trace_state = "cafe"


def invalidate_status(span) -> None:
    span.status.message = "cafe"


def invalidate_event(span) -> None:
    span.events.add(name="fine")
    span.events.add(name="cafe")


def invalidate_event_attribute(span) -> None:
    span.events.add().attributes.add(key="k").value.string_value = "cafe"


def invalidate_link(span) -> None:
    span.links.add(trace_state="cafe")


@pytest.mark.parametrize(
    ("invalidate", "problem"),
    [
        (invalidate_name, "name is not valid UTF-8"),
        (invalidate_key, "attributes: a key is not valid UTF-8"),
        (invalidate_value, "attributes['k']: not valid UTF-8"),
        (invalidate_nested_value, "attributes['k']: malformed, not valid UTF-8 or nested too deeply"),
        (invalidate_trace_state, "traceState is not valid UTF-8"),
        (invalidate_status, "status.message is not valid UTF-8"),
        (invalidate_event, "events[1].name is not valid UTF-8"),
        (invalidate_event_attribute, "events[0].attributes['k']: not valid UTF-8"),
        (invalidate_link, "links[0].traceState is not valid UTF-8"),
    ],
)
def test_invalid_utf8_rejects_only_its_span(make_request, invalidate, problem: str) -> None:
    request = make_request(3)
    invalidate(request.resource_spans[0].scope_spans[0].spans[1])
    decoded = Decoder().decode([make_request(2).SerializeToString(), put_invalid_utf8(request)])
    assert decoded.outcomes == (
        ExportResult(2),
        ExportResult(2, 1, f"1 of 3 spans rejected: resourceSpans[0].scopeSpans[0].spans[1].{problem}"),
    )
    assert decoded.spans["name"].to_pylist() == ["span 1", "span 2", "span 1", "span 3"]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("trace_id", b"", "traceId is 0 bytes long, not 16"),
        ("trace_id", b"\x01" * 15, "traceId is 15 bytes long, not 16"),
        ("trace_id", bytes(16), "traceId is all zeros"),
        ("span_id", b"\x01" * 9, "spanId is 9 bytes long, not 8"),
        ("span_id", bytes(8), "spanId is all zeros"),
        ("parent_span_id", b"\x01", "parentSpanId is 1 bytes long, not 8"),
        ("start_time_unix_nano", 2**63, f"startTimeUnixNano is {2**63}, later than {2**63 - 1}"),
        ("end_time_unix_nano", 2**64 - 1, f"endTimeUnixNano is {2**64 - 1}, later than {2**63 - 1}"),
    ],
)
def test_invalid_span_is_rejected_alone(make_request, field: str, value: object, problem: str) -> None:
    request = make_request(2)
    setattr(request.resource_spans[0].scope_spans[0].spans[0], field, value)
    decoded = decode(request)
    path = "resourceSpans[0].scopeSpans[0].spans[0]"
    assert decoded.outcomes == (ExportResult(1, 1, f"1 of 2 spans rejected: {path}.{problem}"),)
    assert decoded.spans["span_id"].to_pylist() == [2]


def test_only_first_rejections_are_named(make_request) -> None:
    request = make_request(7)
    for span in request.resource_spans[0].scope_spans[0].spans[:5]:
        span.trace_id = b""
    ((accepted),) = decode(request).outcomes
    assert (accepted.accepted_spans, accepted.rejected_spans) == (2, 5)
    assert accepted.error_message.startswith("5 of 7 spans rejected: resourceSpans[0].scopeSpans[0].spans[0].traceId")
    assert accepted.error_message.endswith("spans[2].traceId is 0 bytes long, not 16; and 2 more")


def test_invalid_resource_or_scope_rejects_its_spans(make_request) -> None:
    request = make_request(2)
    request.resource_spans[0].resource.attributes.add(key="k").value.string_value = "cafe"
    request.MergeFrom(make_request(3))
    scope = request.resource_spans[1].scope_spans.add()
    scope.CopyFrom(request.resource_spans[1].scope_spans[0])
    scope.scope.version = "cafe"
    decoded = Decoder().decode([put_invalid_utf8(request)])
    (accepted,) = decoded.outcomes
    assert (accepted.accepted_spans, accepted.rejected_spans) == (3, 5)
    assert "resourceSpans[0].scopeSpans[0].spans[0].resource: attributes['k']: not valid UTF-8" in (
        accepted.error_message
    )
    assert "resourceSpans[1].scopeSpans[1].spans[0].scope: version is not valid UTF-8" in accepted.error_message
    assert decoded.resources.num_rows == decoded.scopes.num_rows == 1


def test_nesting_is_bounded(make_request) -> None:
    def nest(levels: int) -> ExportTraceServiceRequest:
        request = make_request()
        value = request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="k").value
        for _ in range(levels):
            value = value.array_value.values.add()
        return request

    assert decode(nest(46)).outcomes == (ExportResult(1),)
    for levels in (47, 200):
        (accepted,) = decode(nest(levels)).outcomes
        assert accepted.rejected_spans == 1
        assert "nested too deeply" in accepted.error_message


@pytest.mark.parametrize(
    ("value", "service"),
    [
        (AnyValue(string_value="orders"), "orders"),
        (AnyValue(string_value=""), "unknown_service"),
        (AnyValue(array_value=ArrayValue()), "unknown_service"),
        (AnyValue(), "unknown_service"),
    ],
)
def test_service_name_is_read_from_resource(make_request, value: AnyValue, service: str) -> None:
    request = make_request()
    request.resource_spans[0].resource.attributes[0].value.CopyFrom(value)
    decoded = decode(request)
    assert decoded.spans["service"].to_pylist() == decoded.resources["service"].to_pylist() == [service]


def test_resources_and_scopes_differ_by_content_and_schema_url(make_request) -> None:
    requests = [make_request(), make_request(), make_request(), make_request()]
    requests[2].resource_spans[0].schema_url = "https://example.org/1"
    requests[3].resource_spans[0].scope_spans[0].scope.version = "2"
    decoded = decode(*requests)
    same, again, other_resource, other_scope = decoded.spans.to_pylist()
    assert (
        same["resource_key"] == again["resource_key"] == other_scope["resource_key"] != other_resource["resource_key"]
    )
    assert same["scope_key"] == again["scope_key"] == other_resource["scope_key"] != other_scope["scope_key"]
    assert (decoded.resources.num_rows, decoded.scopes.num_rows) == (2, 2)
    # another process computes the same keys
    assert decode(requests[3]).spans["scope_key"].to_pylist() == [other_scope["scope_key"]]


def test_zero_or_empty_parent_id_is_null(make_request) -> None:
    request = make_request(3)
    for span, parent in zip(request.resource_spans[0].scope_spans[0].spans, (b"", bytes(8), b"\xff" * 8), strict=True):
        span.parent_span_id = parent
    assert decode(request).spans["parent_id"].to_pylist() == [None, None, 2**64 - 1]


def test_link_without_ids_is_accepted(make_request) -> None:
    request = make_request()
    request.resource_spans[0].scope_spans[0].spans[0].links.add()
    (span,) = decode(request).spans.to_pylist()
    assert [(link["trace_id"], link["span_id"]) for link in span["links"]] == [(None, None)]


def test_empty_requests_are_accepted(make_request) -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add()
    assert decode(ExportTraceServiceRequest(), request, make_request()).outcomes == (
        ExportResult(0),
        ExportResult(0),
        ExportResult(1),
    )
    assert Decoder().decode([]).outcomes == ()


def test_truncated_request_is_rejected(make_request, capfd) -> None:
    good = make_request(2, attributes=(KeyValue(key="k", value=AnyValue(string_value="v")),)).SerializeToString()
    decoder = Decoder()
    for length in range(len(good)):
        truncated, complete = decoder.decode([good[:length], good]).outcomes
        assert complete == ExportResult(2)
        if length == 0:
            assert truncated == ExportResult(0)
        else:
            assert isinstance(truncated, UndecodableRequest)
    assert capfd.readouterr() == ("", "")


def test_overflowing_length_is_rejected_without_output(make_request, capfd) -> None:
    overflowing = b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    bad, good = Decoder().decode([overflowing, make_request().SerializeToString()]).outcomes
    assert str(bad) == "the trace request cannot be decoded: not a well-formed protobuf message of this type"
    assert good == ExportResult(1)
    assert capfd.readouterr() == ("", "")


def test_reader_failure_rejects_only_its_request(make_request, monkeypatch) -> None:
    decoder = Decoder()
    bad, good = b"unreadable", make_request().SerializeToString()
    read = decoder._requests.read

    def read_unless_bad(bodies: list[bytes]) -> object:
        if bad in bodies:
            raise MalformedMessage("unreadable")
        return read(bodies)

    monkeypatch.setattr(decoder._requests, "read", read_unless_bad)
    monkeypatch.setattr(decoder._requests, "check", lambda _body: None)
    rejected, accepted = decoder.decode([bad, good]).outcomes
    assert str(rejected) == "the trace request cannot be decoded: unreadable"
    assert accepted == ExportResult(1)


def test_request_with_too_many_spans_is_rejected_before_decoding() -> None:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(40_000):
        scope.spans.add()
    (outcome,) = Decoder().decode([request.SerializeToString()]).outcomes
    assert isinstance(outcome, UndecodableRequest)
    assert "40000 spans in 80" in str(outcome)
    for span in scope.spans:
        span.trace_id, span.span_id = b"1" * 16, b"2" * 8
    (outcome,) = Decoder().decode([request.SerializeToString()]).outcomes
    assert outcome == ExportResult(40_000)
