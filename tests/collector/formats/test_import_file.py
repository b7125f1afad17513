"""Files of other tools are imported completely: spans rebuilt from the store equal those of the file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from spanproof.collector.formats.import_file import import_file
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACES = Path(__file__).parents[2] / "traces"
ZIPKIN_KINDS = {2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
JAEGER_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}

Stored = list[tuple[ResourceSpans, ScopeSpans, Span]]


def read(name: str) -> Any:
    content = (TRACES / name).read_bytes()
    return json.loads(gzip.decompress(content) if name.endswith(".gz") else content)


def list_stored(store: Store) -> Stored:
    with store.cursor() as cursor:
        traces = cursor.execute("SELECT DISTINCT replace(trace_id::VARCHAR, '-', '') FROM spans").fetchall()
    return [
        (resource_spans, scope_spans, span)
        for (trace_id,) in traces
        for resource_spans in export_request(store, trace_id).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def as_json(value: AnyValue) -> Any:
    if value.HasField("array_value"):
        return [as_json(each) for each in value.array_value.values]
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def as_dict(attributes: list[KeyValue]) -> dict[str, Any]:
    return {each.key: as_json(each.value) for each in attributes}


def count(items: list[Any]) -> Counter[str]:
    return Counter(json.dumps(each, sort_keys=True) for each in items)


def drop_empty(span: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in span.items() if value not in (None, "", [], {}, 0)}


def make_zipkin(resource_spans: ResourceSpans, scope_spans: ScopeSpans, span: Span) -> dict[str, Any]:
    """Convert a stored span back to its Zipkin span."""
    tags = as_dict(span.attributes)
    zipkin_span: dict[str, Any] = {
        "traceId": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parentId": span.parent_span_id.hex(),
        "name": span.name,
        "kind": ZIPKIN_KINDS.get(span.kind),
        "annotations": [{"timestamp": event.time_unix_nano // 1000, "value": event.name} for event in span.events],
        "shared": tags.pop("zipkin.shared", None),
    }
    if not tags.pop("zipkin.timestamp_absent", False):
        zipkin_span["timestamp"] = span.start_time_unix_nano // 1000
    if span.end_time_unix_nano:
        zipkin_span["duration"] = (span.end_time_unix_nano - span.start_time_unix_nano) // 1000
    peer = {"serviceName": tags.pop("service.peer.name", None)}
    for field, prefix, endpoint in (
        (
            "localEndpoint",
            "network.local",
            {"serviceName": as_dict(resource_spans.resource.attributes).get("service.name")},
        ),
        ("remoteEndpoint", "network.peer", peer),
    ):
        address = tags.pop(f"{prefix}.address", None)
        endpoint["ipv6" if ":" in (address or "") else "ipv4"] = address
        endpoint |= {"port": tags.pop(f"{prefix}.port", None)}
        if f"{prefix}.address_v6" in tags:
            endpoint["ipv6"] = tags.pop(f"{prefix}.address_v6")
        zipkin_span[field] = drop_empty(endpoint)
    zipkin_span["tags"] = tags
    assert span.status.code == (2 if "error" in tags else 0)
    assert not scope_spans.scope.name
    return drop_empty(zipkin_span)


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("ascend.json", 8),
        ("envoy.json", 1),
        ("messaging-kafka.json", 28),
        ("messaging2.json", 11),
        ("simple-db-p6.json", 5),
        ("skew.json", 4),
        ("smartthings-oauth-authorization.json.gz", 175),
        ("yelp.json", 16),
    ],
)
def test_zipkin_file_is_imported_completely(store: Store, name: str, spans: int) -> None:
    imported = import_file(store, TRACES / "zipkin-lens" / name)
    assert (imported.spans, imported.traces, imported.log.skipped.total()) == (spans, 1, 0)
    expected = [
        drop_empty(
            span
            | {"traceId": span["traceId"].rjust(32, "0"), "id": span["id"].rjust(16, "0")}
            | {"parentId": span["parentId"].rjust(16, "0") if span.get("parentId") else None}
            | {field: drop_empty(span.get(field) or {}) for field in ("localEndpoint", "remoteEndpoint")}
        )
        for span in read(f"zipkin-lens/{name}")
    ]
    assert count([make_zipkin(*each) for each in list_stored(store)]) == count(expected)


def make_jaeger(resource_spans: ResourceSpans, scope_spans: ScopeSpans, span: Span) -> dict[str, Any]:
    """Convert a stored span back to its Jaeger span, with its process inlined."""
    process = as_dict(resource_spans.resource.attributes)
    tags = as_dict(span.attributes)
    flags = tags.pop("jaeger.flags", span.flags)
    if span.kind:
        tags["span.kind"] = JAEGER_KINDS[span.kind]
    for key, value in (("name", scope_spans.scope.name), ("version", scope_spans.scope.version)):
        tags |= {f"otel.library.{key}": value} if value else {}
    references = [
        {
            "refType": as_dict(link.attributes)["opentracing.ref_type"].upper(),
            "traceID": link.trace_id.hex(),
            "spanID": link.span_id.hex(),
        }
        for link in span.links
    ]
    if span.parent_span_id:
        parent = {"traceID": span.trace_id.hex(), "spanID": span.parent_span_id.hex()}
        references.insert(0, parent | {"refType": "CHILD_OF"})
    return drop_empty(
        {
            "traceID": span.trace_id.hex(),
            "spanID": span.span_id.hex(),
            "flags": flags,
            "operationName": span.name,
            "references": references,
            "startTime": span.start_time_unix_nano // 1000,
            "duration": (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
            "tags": tags,
            "logs": [
                {
                    "timestamp": event.time_unix_nano // 1000,
                    "fields": as_dict(event.attributes) | ({"event": event.name} if event.name else {}),
                }
                for event in span.events
            ],
            "warnings": tags.pop("jaeger.warnings", None),
            "service": process.pop("service.name"),
            "process": process,
        }
    )


def name_tags(tags: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in tags or []}


def normalize_jaeger(span: dict[str, Any], processes: dict[str, Any]) -> dict[str, Any]:
    process = processes[span["processID"]]
    normalized = {
        "traceID": span["traceID"].rjust(32, "0"),
        "spanID": span["spanID"].rjust(16, "0"),
        "references": [
            each | {"traceID": each["traceID"].rjust(32, "0"), "spanID": each["spanID"].rjust(16, "0")}
            for each in span["references"]
        ],
        "tags": name_tags(span["tags"]),
        "logs": [log | {"fields": name_tags(log["fields"])} for log in span.get("logs") or []],
        "service": process["serviceName"],
        "process": name_tags(process["tags"]),
        "processID": None,
    }
    return drop_empty(span | normalized)


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("genaiTestTrace.json.gz", 57),
        ("spanLongerAsParent.json", 8),
        ("spansAmongEachOther.json", 12),
        ("testTraceNormal.json", 5),
    ],
)
def test_jaeger_file_is_imported_completely(store: Store, name: str, spans: int) -> None:
    imported = import_file(store, TRACES / "jaeger-ui" / name)
    assert (imported.spans, imported.traces) == (spans, 1)
    document = read(f"jaeger-ui/{name}")
    expected = [normalize_jaeger(span, document["processes"]) for span in document["spans"]]
    assert count([make_jaeger(*each) for each in list_stored(store)]) == count(expected)
