"""Stored spans → OTLP, as received."""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from spanproof.collector.otlp.attribute_encoding import KIND_MARKER
from spanproof.collector.otlp.json_mapping import load_json, parse_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    Row = Mapping[str, Any]

_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")
_ID_BYTES = 8


def encode_spans(spans: Iterable[Row], resources: Mapping[int, Row], scopes: Mapping[int, Row]) -> TracesData:
    """Return rows of `spans` as OTLP, grouped by resource and scope, which are given by their keys."""
    data = TracesData()
    by_resource: dict[int, ResourceSpans] = {}
    by_scope: dict[tuple[int, int], ScopeSpans] = {}
    for row in spans:
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


def encode_value(kind: str, text: str | None) -> AnyValue:
    """Return the value of an attribute, from its kind letter and its text, which a NaN and an empty value lack."""
    value = AnyValue()
    _fill_value(value, kind, text)
    return value


def parse_trace_id(trace_id_hex: str) -> UUID:
    """Parse the 32 hex digits of a trace id. Raise ValueError."""
    if not _TRACE_ID.fullmatch(trace_id_hex):
        raise ValueError(f"{trace_id_hex!r} is not a trace id; a trace id has 32 hex digits")
    return UUID(trace_id_hex)


def _fill_resource(resource: Resource, row: Row) -> None:
    _fill_attributes(resource, row)
    parse_message({"entityRefs": load_json(row["entity_refs"].encode())}, resource)


def _fill_scope(scope: InstrumentationScope, row: Row) -> None:
    scope.name = row["name"]
    scope.version = row["version"]
    _fill_attributes(scope, row)


def _fill_span(span: Span, row: Row) -> None:
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


def _fill_attributes(owner: Resource | InstrumentationScope | Span | Span.Event | Span.Link, row: Row) -> None:
    for key, text, kind in zip(*row["attributes"].values(), row["attribute_kinds"], strict=True):
        _fill_value(owner.attributes.add(key=key).value, kind, text)
    owner.dropped_attributes_count = row["dropped_attributes_count"]


def _fill_value(value: AnyValue, kind: str, text: str | None) -> None:
    value.SetInParent()
    if text is None:
        if kind == "d":
            value.double_value = math.nan
        return
    text = text.removeprefix(f"{KIND_MARKER}{kind}")
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
