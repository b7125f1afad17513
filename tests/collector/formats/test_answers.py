"""Containers in which other tools write traces: answers of their APIs, streams, lists and downloads."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.formats.import_file import ImportSummary, import_file
from spanproof.collector.formats.json_documents import UnreadableFile
from spanproof.collector.formats.otlp_protobuf import _encode_varint
from spanproof.collector.otlp.json_mapping import render_message
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACE_ID, SPAN_ID, PARENT_ID = "01" * 16, "02" * 8, "03" * 8
SPAN: dict[str, Any] = {
    "traceId": TRACE_ID,
    "spanId": SPAN_ID,
    "parentSpanId": PARENT_ID,
    "name": "a",
    "kind": 2,
    "startTimeUnixNano": "1",
    "endTimeUnixNano": "2",
}
# as protobuf's JSON mapping writes ids, which Tempo uses
BASE64_SPAN = SPAN | {
    key: base64.b64encode(bytes.fromhex(SPAN[key])).decode() for key in ("traceId", "spanId", "parentSpanId")
}
NAMED_SPAN = BASE64_SPAN | {"kind": "SPAN_KIND_SERVER", "status": {"code": "STATUS_CODE_UNSET"}}
OTHER_SPAN = SPAN | {"spanId": "04" * 8}
JAEGER_SPAN: dict[str, Any] = {
    "traceID": "1",
    "spanID": "2",
    "operationName": "a",
    "references": [],
    "startTime": 5,
    "duration": 1,
    "tags": [],
    "logs": [],
    "processID": "p1",
    "warnings": None,
}
PROCESS = {"serviceName": "shop", "tags": []}
JAEGER_TRACE = {"traceID": "1", "spans": [JAEGER_SPAN], "processes": {"p1": PROCESS}, "warnings": None}

Read = Callable[..., ImportSummary]


@pytest.fixture
def read(store: Store, tmp_path: Path) -> Read:
    """Return a function that imports a text, bytes or a JSON document."""

    def read(content: Any, *, lenient: bool = False) -> ImportSummary:
        path = tmp_path / "file"
        if not isinstance(content, bytes | str):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_file(store, path, lenient=lenient)

    return read


def make_otlp(*spans: dict[str, Any], key: str = "resourceSpans", scopes: str = "scopeSpans") -> dict[str, Any]:
    return {key: [{"resource": {"attributes": []}, scopes: [{"spans": list(spans)}]}]}


@pytest.mark.parametrize(
    "document",
    [
        # Tempo, /api/traces: hex or base64 ids, enums as names or numbers
        make_otlp(NAMED_SPAN, key="batches"),
        make_otlp(SPAN, key="batches", scopes="instrumentationLibrarySpans"),
        # Tempo, /api/v2/traces
        {"trace": make_otlp(NAMED_SPAN), "metrics": {"inspectedBytes": "331932"}},
        {"trace": make_otlp(SPAN, key="batches"), "metrics": {}, "status": "COMPLETE", "message": ""},
        {"trace": make_otlp(SPAN), "status": 0, "metrics": None},
        # Jaeger, /api/v3/traces
        {"result": make_otlp(SPAN)},
        {"result": make_otlp(BASE64_SPAN)},
        # lists and wrappers of documents
        [make_otlp(SPAN)],
        {"traces": [make_otlp(SPAN)]},
        {"traces": make_otlp(SPAN)},
        [{"trace": make_otlp(SPAN)}, {"trace": None}],
        [{"result": make_otlp(SPAN)}],
    ],
    ids=lambda document: json.dumps(document)[:60],
)
def test_answer_with_otlp_is_read(store: Store, read: Read, document: Any) -> None:
    imported = read(document)
    assert (imported.spans, imported.traces, imported.log.list_warnings()) == (1, 1, [])
    (resource_spans,) = export_request(store, TRACE_ID).resource_spans
    (span,) = resource_spans.scope_spans[0].spans
    assert render_message(span) == SPAN


@pytest.mark.parametrize("separator", ["\n", "", "\n\n", " "])
@pytest.mark.parametrize("indent", [None, 2])
def test_stream_of_answers_is_read(store: Store, read: Read, separator: str, indent: int | None) -> None:
    chunks = ({"result": make_otlp(SPAN)}, {"result": make_otlp(OTHER_SPAN)})
    assert read(separator.join(json.dumps(chunk, indent=indent) for chunk in chunks)).spans == 2


def test_problem_in_stream_has_its_line(read: Read) -> None:
    chunks = [json.dumps({"result": make_otlp(span)}, indent=1) for span in (SPAN, SPAN | {"kind": "SERVER"})]
    line = chunks[0].count("\n") + 2
    with pytest.raises(UnreadableFile, match=rf"line {line}: result\.resourceSpans\[0\].*\.kind: 'SERVER' is not one"):
        read("\n".join(chunks))
    with pytest.raises(UnreadableFile, match=rf"line {line}, column 1: not JSON: Expecting value"):
        read(f"{chunks[0]}\n?")


def test_partial_answer_is_noted(read: Read) -> None:
    answer = {"trace": make_otlp(SPAN), "status": "PARTIAL", "message": "trace exceeds max size"}
    assert read(answer).log.list_warnings() == ["$: Tempo answered with a part of the trace: trace exceeds max size"]


def test_protobuf_answer_of_tempo_is_read(read: Read, make_request) -> None:
    trace = make_request(3).SerializeToString()
    answer = b"\x0a" + _encode_varint(len(trace)) + trace
    assert read(answer + b"\x12\x02\x08\x05\x18\x01").spans == 3
    assert read(answer).spans == 3


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            {"error": {"httpCode": 404, "message": "No traces found"}},
            "error: the query that wrote this file failed: No traces found",
        ),
        (
            {"traces": [{"traceID": "1", "rootServiceName": "shop", "spanSets": []}], "metrics": {}},
            "traces: the result of a search, without spans; export each trace by its id",
        ),
        ({"trace": {}, "metrics": {}}, "the file contains no spans"),
        ({"trace": make_otlp(SPAN), "extra": 1}, "extra: unknown field; its content would be lost"),
        ({"result": {"data": []}}, "result.data: unknown field; its content would be lost"),
        ([make_otlp(SPAN), 5], "[1]: an array is expected"),
        ({"result": {"result": {"result": {"result": {"result": {"result": {}}}}}}}, ": nested too deeply"),
        (
            {"data": None, "errors": [{"code": 404, "msg": "trace not found"}]},
            "errors: the query that wrote this file failed: trace not found",
        ),
    ],
)
def test_answer_without_spans_is_explained(read: Read, document: Any, problem: str) -> None:
    with pytest.raises(UnreadableFile) as error:
        read(document)
    assert str(error.value).endswith(problem)


@pytest.mark.parametrize(
    "document",
    [
        {"data": [JAEGER_TRACE], "total": 0, "limit": 0, "offset": 0, "errors": None},
        {"data": [JAEGER_TRACE]},
        JAEGER_TRACE,
        [JAEGER_TRACE],
        [{"data": [JAEGER_TRACE]}],
        # with what the UI computes
        {
            "data": JAEGER_TRACE
            | {"services": [{"name": "shop", "numberOfSpans": 1}], "duration": 1, "startTime": 5, "endTime": 6}
            | {"traceName": "shop: a", "traceEmoji": "", "tracePageTitle": "a", "orphanSpanCount": 0}
            | {
                "spans": [
                    JAEGER_SPAN
                    | {"process": PROCESS, "depth": 0, "hasChildren": False, "relativeStartTime": 0}
                    | {"childSpanIds": [], "subsidiarilyReferencedBy": []}
                ]
            },
            "id": "1",
            "state": "FETCHED_DONE",
        },
        {"spans": [{key: value for key, value in JAEGER_SPAN.items() if key != "processID"} | {"process": PROCESS}]},
    ],
    ids=lambda document: json.dumps(document)[:60],
)
def test_download_of_jaeger_is_read(store: Store, read: Read, document: Any) -> None:
    assert read(document).spans == 1
    (resource_spans,) = export_request(store, f"{1:032x}").resource_spans
    assert resource_spans.resource.attributes[0].value.string_value == "shop"
    assert resource_spans.scope_spans[0].spans[0].name == "a"


def test_long_trace_is_converted_in_parts(read: Read) -> None:
    spans = [JAEGER_SPAN | {"spanID": f"{number:x}", "processID": f"p{number % 3}"} for number in range(1, 1202)]
    processes = {f"p{number}": PROCESS for number in range(3)}
    # the processes come after the spans, as Jaeger writes them
    assert read({"data": [{"traceID": "1", "spans": spans, "processes": processes}]}).spans == 1201
    spans[900]["startTime"] = "soon"
    with pytest.raises(UnreadableFile, match=r"data\[0\]\.spans\[900\]\.startTime: a whole number is expected"):
        read({"data": [{"traceID": "1", "spans": spans, "processes": processes}]})
    zipkin = [{"traceId": "1", "id": f"{number:x}", "timestamp": 5, "duration": 1} for number in range(1, 1202)]
    assert read(zipkin).spans == 1201


PROTOBUF_SPAN: dict[str, Any] = {
    "traceId": base64.b64encode(bytes(15) + b"\1").decode(),
    "spanId": base64.b64encode(bytes(7) + b"\2").decode(),
    "operationName": "a",
    "references": [
        {
            "traceId": base64.b64encode(bytes(15) + b"\1").decode(),
            "spanId": base64.b64encode(bytes(7) + b"\3").decode(),
        }
    ],
    "flags": 1,
    "startTime": "2017-01-26T16:46:31.639875123Z",
    "duration": "0.000100s",
    "tags": [
        {"key": "t", "vStr": "x"},
        {"key": "b", "vType": "BOOL", "vBool": True},
        {"key": "i", "vType": 2, "vInt64": "7"},
        {"key": "f", "vType": "FLOAT64", "vFloat64": 0.5},
        {"key": "y", "vType": "BINARY"},
    ],
    "logs": [{"timestamp": "2017-01-26T16:46:32Z", "fields": [{"key": "event", "vStr": "e"}]}],
    "process": {"serviceName": "shop", "tags": [{"key": "host", "vStr": "h"}]},
    "warnings": ["w"],
}


def test_protobuf_model_of_jaeger_is_read(store: Store, read: Read) -> None:
    mapped = {key: value for key, value in PROTOBUF_SPAN.items() if key != "process"} | {"processId": "p1"}
    process_map = [{"processId": "p1", "process": PROTOBUF_SPAN["process"]}]
    assert read({"spans": [PROTOBUF_SPAN]}).spans == 1
    assert read({"spans": [mapped | {"duration": "100us"}], "processMap": process_map}).spans == 1
    (resource_spans,) = export_request(store, f"{1:032x}").resource_spans
    first, second = resource_spans.scope_spans[0].spans
    assert first == second
    assert [each.value.string_value for each in resource_spans.resource.attributes] == ["shop", "h"]
    start_ns = 1_485_449_191_639_875_123
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (start_ns, start_ns + 100_000)
    assert (first.parent_span_id, first.events[0].name) == (bytes(7) + b"\3", "e")
    assert {each.key: render_message(each.value) for each in first.attributes} == {
        "t": {"stringValue": "x"},
        "b": {"boolValue": True},
        "i": {"intValue": "7"},
        "f": {"doubleValue": 0.5},
        "y": {"bytesValue": ""},
        "jaeger.warnings": {"arrayValue": {"values": [{"stringValue": "w"}]}},
    }


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"traceId": "?"}, "spans[0].traceId: '?' is not an id in base64"),
        ({"startTime": "noon"}, "spans[0].startTime: 'noon' is not a time such as 2026-01-31T12:00:00.5Z"),
        ({"startTime": "2017-13-26T16:46:31Z"}, "is not a time such as 2026-01-31T12:00:00.5Z"),
        ({"duration": "1m2s"}, "spans[0].duration: '1m2s' is not a duration such as 0.001s"),
        ({"tags": [{"key": "a", "vType": "DATE"}]}, "spans[0].tags[0].vType: 'DATE' is not one of STRING,"),
        ({"tags": [{"key": "a", "vInt64": 1}]}, "spans[0].tags[0].vInt64: unknown field; its content would be lost"),
        ({"colour": "red"}, "spans[0].colour: unknown field; its content would be lost"),
    ],
)
def test_problem_in_protobuf_model_has_its_path(read: Read, changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnreadableFile) as error:
        read({"spans": [PROTOBUF_SPAN | changed]})
    assert problem in str(error.value)


# ## Unknown fields


def test_unknown_fields_are_counted_if_lenient(store: Store, read: Read) -> None:
    event = {"timeUnixNano": "1", "colour": "red"}
    document = {
        "trace": make_otlp(SPAN | {"colour": "red", "events": [event, event]}, OTHER_SPAN | {"colour": "blue"}),
        "took": "3ms",
    }
    with pytest.raises(UnreadableFile, match="took: unknown field"):
        read(document)
    imported = read(document, lenient=True)
    assert (imported.spans, imported.log.list_warnings()) == (
        2,
        [
            "took: unknown field, ignored once",
            "trace.resourceSpans[].scopeSpans[].spans[].colour: unknown field, ignored 2 times",
            "trace.resourceSpans[].scopeSpans[].spans[].events[].colour: unknown field, ignored 2 times",
        ],
    )


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (
            {"data": [JAEGER_TRACE | {"spans": [JAEGER_SPAN | {"startTimeMillis": 5}]}]},
            "data[].spans[].startTimeMillis",
        ),
        ([{"traceId": "1", "id": "2", "timestamp": 5, "binaryAnnotations": []}], "[].binaryAnnotations"),
    ],
)
def test_unknown_fields_of_other_formats_are_counted(read: Read, document: Any, path: str) -> None:
    assert read(document, lenient=True).log.list_warnings() == [f"{path}: unknown field, ignored once"]


def test_unknown_fields_of_protobuf_are_counted(read: Read, make_request) -> None:
    valid = make_request(2).SerializeToString()
    valid, unknown = (_encode_varint(len(body)) + body for body in (valid, valid + b"\x12\x01x"))
    with pytest.raises(UnreadableFile, match=r"message\[1\]: .*with unknown fields"):
        read(valid + unknown)
    assert read(valid + unknown * 2, lenient=True).log.list_warnings() == ["message: unknown field, ignored 2 times"]
    assert read(unknown * 2, lenient=True).spans == 4


# ## Values that mean nothing


def test_last_value_of_a_duplicate_key_is_kept(store: Store, read: Read) -> None:
    attributes = [{"key": "a", "value": {"intValue": n}} for n in (1, 2)]
    request = ExportTraceServiceRequest()
    read(make_otlp(SPAN | {"attributes": attributes}))
    (stored,) = export_request(store, TRACE_ID).resource_spans[0].scope_spans[0].spans[0].attributes
    assert stored.value.int_value == 2
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\5" * 16, span_id=b"\6" * 8)
    for number in (1, 2):
        span.attributes.add(key="a").value.int_value = number
    read(request.SerializeToString())
    (stored,) = export_request(store, "05" * 16).resource_spans[0].scope_spans[0].spans[0].attributes
    assert stored.value.int_value == 2


def test_missing_values_have_no_text_and_are_exported(store: Store, read: Read) -> None:
    values: dict[str, Any] = {
        "nan": {"doubleValue": "NaN"},
        "empty": {},
        "text": {"stringValue": ""},
        "list": {"arrayValue": {"values": [{"doubleValue": "NaN"}, {}, {"intValue": "3"}]}},
        "infinite": {"doubleValue": "-Infinity"},
    }
    attributes = [{"key": key, "value": value} for key, value in values.items()] + [{"key": "null", "value": None}]
    event = {"timeUnixNano": "1", "attributes": [{"key": "nan", "value": {"doubleValue": "NaN"}}]}
    read(make_otlp(SPAN | {"attributes": attributes, "events": [event]}))
    (span,) = export_request(store, TRACE_ID).resource_spans[0].scope_spans[0].spans
    assert {each.key: render_message(each.value) for each in span.attributes} == values | {"null": {}}
    assert render_message(span.events[0].attributes[0].value) == {"doubleValue": "NaN"}
    with store.cursor() as cursor:
        sql = "SELECT attributes.texts, attribute_texts(attributes.texts[4]), events[1].attributes.texts FROM spans"
        assert cursor.execute(sql).fetchall() == [
            (
                [None, None, "", '\x01a[{"doubleValue":"NaN"},{},{"intValue":"3"}]', "-inf", None],
                [None, None, "3"],
                [None],
            )
        ]


@pytest.mark.parametrize(
    "document",
    [
        make_otlp(SPAN | {"traceId": f"{1:032x}", "endTimeUnixNano": "0"}),
        make_otlp({key: value for key, value in SPAN.items() if key != "endTimeUnixNano"} | {"traceId": f"{1:032x}"}),
        [{"traceId": "1", "id": "2", "timestamp": 5}],
        [{"traceId": "1", "id": "2", "timestamp": 5, "duration": 0}],
        {"data": [JAEGER_TRACE | {"spans": [{k: v for k, v in JAEGER_SPAN.items() if k != "duration"}]}]},
    ],
    ids=lambda document: json.dumps(document)[:60],
)
def test_span_without_end_is_stored_without(store: Store, read: Read, document: Any) -> None:
    read(document)
    with store.cursor() as cursor:
        assert cursor.execute("SELECT end_ns, start_ns > 0 FROM spans").fetchall() == [(0, True)]
    (span,) = export_request(store, f"{1:032x}").resource_spans[0].scope_spans[0].spans
    assert span.end_time_unix_nano == 0
    assert [each.key for each in span.attributes] == []
