"""Conversion of single Jaeger and Zipkin fields that the recorded files lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from spanproof.collector.formats.import_file import import_file
from spanproof.collector.otlp.json_mapping import render_message
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACE_ID = f"{1:032x}"
JAEGER = {"traceID": "1", "spanID": "2", "operationName": "a", "startTime": 5, "duration": 1, "processID": "p"}
ZIPKIN = {"traceId": "1", "id": "2", "timestamp": 5, "duration": 1}


@pytest.fixture
def read(store: Store, tmp_path: Path):
    """Return a function that stores a document and returns its only resource."""

    def read(document: Any) -> ResourceSpans:
        path = tmp_path / "document"
        path.write_text(json.dumps(document))
        import_file(store, path)
        (resource_spans,) = export_request(store, TRACE_ID).resource_spans
        return resource_spans

    return read


@pytest.fixture
def read_jaeger(read):
    def read_jaeger(span: dict[str, Any], **trace: Any) -> Span:
        processes = {"p": {"serviceName": "shop"}}
        resource_spans = read({"traceID": "1", "spans": [JAEGER | span], "processes": processes} | trace)
        return resource_spans.scope_spans[0].spans[0]

    return read_jaeger


@pytest.fixture
def read_zipkin(read):
    return lambda span: read([ZIPKIN | span]).scope_spans[0].spans[0]


def make_tag(key: str, value: Any, kind: str = "string") -> dict[str, Any]:
    return {"key": key, "type": kind, "value": value}


def make_reference(kind: str, span: str, trace: str = "1") -> dict[str, str]:
    return {"refType": kind, "traceID": trace, "spanID": span}


def values_by_key(attributes: list[KeyValue]) -> dict[str, Any]:
    return {each.key: render_message(each.value) for each in attributes}


def list_links(span: Span) -> list[tuple[int, int, str]]:
    return [
        (
            int.from_bytes(link.trace_id, "big"),
            int.from_bytes(link.span_id, "big"),
            link.attributes[0].value.string_value,
        )
        for link in span.links
    ]


# ## Jaeger


def test_jaeger_tags_keep_types(read_jaeger) -> None:
    span = read_jaeger(
        {
            "tags": [
                make_tag("s", "x"),
                make_tag("b", True, "bool"),
                make_tag("i", -5, "int64"),
                make_tag("big", "9007199254740993", "int64"),
                make_tag("f", 3, "float64"),
                make_tag("y", "AAE=", "binary"),
            ]
        }
    )
    assert values_by_key(span.attributes) == {
        "s": {"stringValue": "x"},
        "b": {"boolValue": True},
        "i": {"intValue": "-5"},
        "big": {"intValue": "9007199254740993"},
        "f": {"doubleValue": 3.0},
        "y": {"bytesValue": "AAE="},
    }


def test_duplicate_jaeger_tags_keep_all_values(read_jaeger) -> None:
    span = read_jaeger(
        {"tags": [make_tag("a", "x"), make_tag("b", "x"), make_tag("a", 1, "int64"), make_tag("b", "x")]}
    )
    both = {"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "1"}]}}
    assert values_by_key(span.attributes) == {"a": both, "b": {"stringValue": "x"}}


def test_jaeger_logs_become_events(read_jaeger) -> None:
    fields = [make_tag("event", "retry"), make_tag("event", "again"), make_tag("attempt", 2, "int64")]
    first, second = read_jaeger(
        {"logs": [{"timestamp": 7, "fields": fields}, {"timestamp": 8, "fields": [make_tag("event", 1, "int64")]}]}
    ).events
    assert (first.time_unix_nano, first.name) == (7000, "retry")
    assert values_by_key(first.attributes) == {"event": {"stringValue": "again"}, "attempt": {"intValue": "2"}}
    assert (second.name, values_by_key(second.attributes)) == ("", {"event": {"intValue": "1"}})


@pytest.mark.parametrize(
    ("fields", "parent", "linked"),
    [
        ({"references": [make_reference("CHILD_OF", "7")]}, 7, []),
        ({"references": [make_reference("CHILD_OF", "7"), make_reference("CHILD_OF", "7")]}, 7, [(1, 7, "child_of")]),
        ({"references": [make_reference("CHILD_OF", "7"), make_reference("CHILD_OF", "8")]}, 7, [(1, 8, "child_of")]),
        (
            {"references": [make_reference("FOLLOWS_FROM", "7"), make_reference("CHILD_OF", "8")]},
            8,
            [(1, 7, "follows_from")],
        ),
        (
            {"references": [make_reference("CHILD_OF", "7"), make_reference("FOLLOWS_FROM", "7")]},
            7,
            [(1, 7, "follows_from")],
        ),
        ({"references": [make_reference("FOLLOWS_FROM", "7")]}, 7, [(1, 7, "follows_from")]),
        ({"references": [make_reference("CHILD_OF", "7", "9")]}, 0, [(9, 7, "child_of")]),
        ({"parentSpanID": "8", "references": [make_reference("CHILD_OF", "7")]}, 8, [(1, 7, "child_of")]),
        ({"parentSpanID": "8", "references": [make_reference("CHILD_OF", "8")]}, 8, []),
        ({"parentSpanID": "0"}, 0, []),
    ],
)
def test_jaeger_references_become_parent_and_links(
    read_jaeger, fields: dict[str, Any], parent: int, linked: list[tuple[int, int, str]]
) -> None:
    span = read_jaeger(fields)
    assert int.from_bytes(span.parent_span_id, "big") == parent
    assert list_links(span) == linked


@pytest.mark.parametrize(
    ("tags", "code", "message", "remaining"),
    [
        ([make_tag("error", True, "bool")], 2, "", {"error": {"boolValue": True}}),
        ([make_tag("error", "true")], 2, "", {"error": {"stringValue": "true"}}),
        ([make_tag("error", False, "bool")], 0, "", {"error": {"boolValue": False}}),
        ([make_tag("otel.status_code", "OK"), make_tag("error", "true")], 1, "", {"error": {"stringValue": "true"}}),
        ([make_tag("otel.status_code", "ERROR"), make_tag("otel.status_description", "no")], 2, "no", {}),
        ([make_tag("otel.status_code", "odd")], 0, "", {"otel.status_code": {"stringValue": "odd"}}),
    ],
)
def test_jaeger_errors_become_status(
    read_jaeger, tags: list[dict[str, Any]], code: int, message: str, remaining: dict[str, Any]
) -> None:
    span = read_jaeger({"tags": tags})
    assert (span.status.code, span.status.message, values_by_key(span.attributes)) == (code, message, remaining)


def test_jaeger_specific_fields_are_kept(read) -> None:
    span = JAEGER | {
        "flags": 3,
        "warnings": ["clock skew"],
        "tags": [
            make_tag("span.kind", "queue"),
            make_tag("w3c.tracestate", "a=b"),
            make_tag("otel.scope.name", "new"),
            make_tag("otel.library.name", "old"),
            make_tag("otel.library.version", "2"),
        ],
    }
    process = {"serviceName": "shop", "tags": [make_tag("service.name", "shop"), make_tag("host", "h1")]}
    resource_spans = read({"spans": [span], "processes": {"p": process}, "warnings": ["late"], "_comment": "invented"})
    assert values_by_key(resource_spans.resource.attributes) == {
        "service.name": {"stringValue": "shop"},
        "host": {"stringValue": "h1"},
    }
    (scope_spans,) = resource_spans.scope_spans
    assert (scope_spans.scope.name, scope_spans.scope.version) == ("new", "2")
    (stored,) = scope_spans.spans
    assert (stored.flags, stored.trace_state, stored.kind) == (1, "a=b", 0)
    assert values_by_key(stored.attributes) == {
        "span.kind": {"stringValue": "queue"},
        "otel.library.name": {"stringValue": "old"},
        "jaeger.flags": {"intValue": "3"},
        "jaeger.warnings": {"arrayValue": {"values": [{"stringValue": "clock skew"}]}},
        "jaeger.trace.warnings": {"arrayValue": {"values": [{"stringValue": "late"}]}},
    }


# ## Zipkin


def test_zipkin_endpoints_become_attributes(read) -> None:
    resource_spans = read(
        [
            ZIPKIN
            | {
                "debug": False,
                "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1", "ipv6": "::1", "port": 80},
                "remoteEndpoint": {"serviceName": "bank", "ipv6": "::2", "port": 443},
                "tags": {"network.peer.port": "8443"},
            }
        ]
    )
    assert values_by_key(resource_spans.resource.attributes) == {"service.name": {"stringValue": "shop"}}
    assert values_by_key(resource_spans.scope_spans[0].spans[0].attributes) == {
        "network.peer.port": {"stringValue": "8443"},
        "zipkin.network.peer.port": {"intValue": "443"},
        "network.local.address": {"stringValue": "10.0.0.1"},
        "network.local.address_v6": {"stringValue": "::1"},
        "network.local.port": {"intValue": "80"},
        "network.peer.address": {"stringValue": "::2"},
        "service.peer.name": {"stringValue": "bank"},
        "zipkin.debug": {"boolValue": False},
    }


@pytest.mark.parametrize(
    ("tags", "code", "message"),
    [
        ({"error": "no funds"}, 2, "no funds"),
        ({"error": ""}, 2, ""),
        ({"error": "true"}, 2, ""),
        ({"error": "false"}, 0, ""),
        ({"otel.status_code": "OK"}, 1, ""),
        ({"otel.status_code": "ERROR", "error": "no"}, 2, "no"),
    ],
)
def test_zipkin_errors_become_status(read_zipkin, tags: dict[str, str], code: int, message: str) -> None:
    span = read_zipkin({"tags": tags})
    assert (span.status.code, span.status.message) == (code, message)
    assert ("error" in values_by_key(span.attributes)) == ("error" in tags)


def test_absent_zipkin_times_are_marked(read) -> None:
    shared = {"traceId": "1", "id": "3", "shared": True, "kind": "SERVER"}
    annotated = {
        "traceId": "1",
        "id": "4",
        "annotations": [{"timestamp": 9, "value": "b"}, {"timestamp": 8, "value": "a"}],
    }
    spans = {span.span_id[-1]: span for span in read([ZIPKIN, shared, annotated]).scope_spans[0].spans}
    assert [(spans[n].start_time_unix_nano, spans[n].end_time_unix_nano) for n in (2, 3, 4)] == [
        (5000, 6000),
        (5000, 0),
        (8000, 0),
    ]
    absent = {"zipkin.timestamp_absent": {"boolValue": True}}
    assert [values_by_key(spans[n].attributes) for n in (2, 3, 4)] == [
        {},
        absent | {"zipkin.shared": {"boolValue": True}},
        absent,
    ]
    assert [(event.time_unix_nano, event.name) for event in spans[4].events] == [(9000, "b"), (8000, "a")]


def test_zipkin_traces_may_be_lists(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "traces"
    path.write_text(json.dumps([[ZIPKIN], [ZIPKIN | {"traceId": "f" * 32}]]))
    imported = import_file(store, path)
    assert (imported.spans, imported.traces) == (2, 2)
