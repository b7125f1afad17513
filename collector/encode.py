"""Stored spans → OTLP again, as they came."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from spanproof.collector.attributes import MARK
from spanproof.collector.otlp_json import load_json, parse_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    from spanproof.collector.store import Store

_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")
_ID_BYTES = 8
_SPANS_AT_ONCE = 2000


def export_request(store: Store, trace_id_hex: str) -> TracesData:
    """Give back a trace as OTLP, its spans in the order they came; empty where the store has none of it."""
    trace_id = read_trace_id(trace_id_hex)
    with store.cursor() as cursor:
        return _encode(cursor, "trace_id = ?", [trace_id])


def export_requests(cursor: duckdb.DuckDBPyConnection, trace_ids: Sequence[UUID] | None) -> Iterator[TracesData]:
    """Give back these traces, or all, as OTLP: a bounded number of spans at a time, in the order they came."""
    chosen = "true" if trace_ids is None else "trace_id IN (SELECT unnest(?::UUID[]))"
    parameters = [] if trace_ids is None else [list(trace_ids)]
    numbered = f"SELECT span_key, (row_number() OVER (ORDER BY span_key) - 1) // ? AS part FROM spans WHERE {chosen}"  # noqa: S608 (fixed texts)
    parts = cursor.execute(
        f"SELECT min(span_key), max(span_key) FROM ({numbered}) GROUP BY part ORDER BY part",  # noqa: S608 (fixed texts)
        [_SPANS_AT_ONCE, *parameters],
    ).fetchall()
    for part in parts:
        yield _encode(cursor, f"span_key BETWEEN ? AND ? AND {chosen}", [*part, *parameters])


def encode_value(kind: str, text: str) -> AnyValue:
    """Give back the value of an attribute, from its letter and its text."""
    value = AnyValue()
    _fill_value(value, kind, text)
    return value


def read_trace_id(trace_id_hex: str) -> UUID:
    """Read the 32 hex digits of a trace id, or raise ValueError."""
    if not _TRACE_ID.fullmatch(trace_id_hex):
        raise ValueError(f"{trace_id_hex!r} is no trace id; it has 32 hex digits")
    return UUID(trace_id_hex)


def _encode(cursor: duckdb.DuckDBPyConnection, chosen: str, parameters: list[Any]) -> TracesData:
    """Encode the spans of which the condition `chosen` holds."""
    resources = _fetch_origins(cursor, "resource", chosen, parameters)
    scopes = _fetch_origins(cursor, "scope", chosen, parameters)
    data = TracesData()
    by_resource: dict[int, ResourceSpans] = {}
    by_scope: dict[tuple[int, int], ScopeSpans] = {}
    for row in _fetch(cursor, f"FROM spans WHERE {chosen} ORDER BY span_key", parameters):
        resource_key, scope_key = row["resource_key"], row["scope_key"]
        if resource_key not in by_resource:
            by_resource[resource_key] = data.resource_spans.add()
            by_resource[resource_key].schema_url = resources[resource_key]["schema_url"]
            _fill_resource(by_resource[resource_key].resource, resources[resource_key])
        if (resource_key, scope_key) not in by_scope:
            by_scope[resource_key, scope_key] = by_resource[resource_key].scope_spans.add()
            by_scope[resource_key, scope_key].schema_url = scopes[scope_key]["schema_url"]
            _fill_scope(by_scope[resource_key, scope_key].scope, scopes[scope_key])
        _fill_span(by_scope[resource_key, scope_key].spans.add(), row)
    return data


def _fetch_origins(
    cursor: duckdb.DuckDBPyConnection, name: str, chosen: str, parameters: list[Any]
) -> dict[int, dict[str, Any]]:
    key = f"{name}_key"
    of_spans = f"FROM {name}s WHERE {key} IN (SELECT {key} FROM spans WHERE {chosen})"  # noqa: S608 (fixed texts)
    return {row[key]: row for row in _fetch(cursor, of_spans, parameters)}


def _fetch(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
    cursor.execute(sql, parameters)
    names = [str(column[0]) for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _fill_resource(resource: Resource, row: dict[str, Any]) -> None:
    _fill_attributes(resource, row)
    parse_message({"entityRefs": load_json(row["entity_refs"].encode())}, resource)


def _fill_scope(scope: InstrumentationScope, row: dict[str, Any]) -> None:
    scope.name = row["name"]
    scope.version = row["version"]
    _fill_attributes(scope, row)


def _fill_span(span: Span, row: dict[str, Any]) -> None:
    span.trace_id = row["trace_id"].bytes
    span.span_id = _to_bytes(row["span_id"])
    span.parent_span_id = _to_bytes(row["parent_id"])
    span.trace_state = row["trace_state"]
    span.flags = row["flags"]
    span.name = row["name"]
    span.kind = row["kind"]
    span.start_time_unix_nano = row["start_ns"]
    span.end_time_unix_nano = row["end_ns"]
    if row["status"] or row["status_message"]:
        span.status.code = row["status"]
        span.status.message = row["status_message"]
    _fill_attributes(span, row)
    for stored in row["events"]:
        event = span.events.add(time_unix_nano=stored["time_ns"], name=stored["name"])
        _fill_attributes(event, stored)
    span.dropped_events_count = row["dropped_events_count"]
    for stored in row["links"]:
        link = span.links.add(trace_state=stored["trace_state"], flags=stored["flags"])
        link.trace_id = stored["trace_id"].bytes if stored["trace_id"] else b""
        link.span_id = _to_bytes(stored["span_id"])
        _fill_attributes(link, stored)
    span.dropped_links_count = row["dropped_links_count"]


def _to_bytes(span_id: int | None) -> bytes:
    return b"" if span_id is None else span_id.to_bytes(_ID_BYTES, "big")


def _fill_attributes(
    owner: Resource | InstrumentationScope | Span | Span.Event | Span.Link, row: dict[str, Any]
) -> None:
    for key, text, kind in zip(*row["attributes"].values(), row["attribute_kinds"], strict=True):
        _fill_value(owner.attributes.add(key=key).value, kind, text)
    owner.dropped_attributes_count = row["dropped_attributes_count"]


def _fill_value(value: AnyValue, kind: str, text: str) -> None:
    text = text.removeprefix(f"{MARK}{kind}")
    value.SetInParent()
    match kind:
        case "s":
            value.string_value = text
        case "b":
            value.bool_value = text == "true"
        case "i":
            value.int_value = int(text)
        case "d":
            value.double_value = float(text)
        case "y":
            value.bytes_value = base64.b64decode(text)
        case "a" | "k":
            field = value.array_value if kind == "a" else value.kvlist_value
            field.SetInParent()
            parse_message({"values": load_json(text.encode())}, field)
