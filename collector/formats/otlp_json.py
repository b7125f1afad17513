"""OTLP/JSON documents, including those of Tempo and older versions → trace requests of bounded size.

An unknown field is an error, unlike in export requests, where OTLP requires that unknown fields are ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.formats.json_documents import (
    Json,
    UnreadableFile,
    expect_list,
    expect_type,
    join_path,
    raise_unreadable,
    reject_unknown_keys,
)
from spanproof.collector.formats.requests import LocatedRequest, reject_duplicate_keys, reject_duplicate_keys_in_span
from spanproof.collector.otlp.json_mapping import InvalidJson, fields_by_key, parse_message

if TYPE_CHECKING:
    from google.protobuf.message import Message

# Top-level keys of OTLP documents, by their signal.
TRACES_KEYS: Final = ("resourceSpans", "batches")
OTHER_SIGNALS_BY_KEY: Final = {"resourceLogs": "logs", "resourceMetrics": "metrics"}
_SCOPE_SPANS: Final = {"scopeSpans": "scope", "instrumentationLibrarySpans": "instrumentationLibrary"}
_REQUEST_BYTES: Final = 2**20
# Depths of a resource, a scope and a span in a request.
_RESOURCE_DEPTH, _SPAN_DEPTH = 3, 4
_ID_DIGITS: Final = {"trace_id": 32, "span_id": 16, "parent_span_id": 16}


def split_otlp_document(document: Json, location: str, skipped: Counter[str]) -> Iterator[LocatedRequest]:
    """Yield requests for the spans of a document; count other signals in `skipped`. Raise UnreadableFile."""
    reject_unknown_keys(expect_type(document, dict, ""), (*TRACES_KEYS, *OTHER_SIGNALS_BY_KEY), "")
    for key, name in OTHER_SIGNALS_BY_KEY.items():
        skipped[name] += key in document
    for key in TRACES_KEYS:
        for index, content in enumerate(expect_list(document.get(key), key)):
            yield from _split_resource_spans(content, f"{key}[{index}]", location)


def _split_resource_spans(content: Json, path: str, location: str) -> Iterator[LocatedRequest]:
    reject_unknown_keys(expect_type(content, dict, path), ("resource", "schemaUrl", *_SCOPE_SPANS), path)
    request = ExportTraceServiceRequest()
    request_resource = request.resource_spans.add()
    _fill_message(request_resource.resource, content.get("resource"), f"{path}.resource", _RESOURCE_DEPTH)
    reject_duplicate_keys(request_resource.resource.attributes, f"{path}.resource")
    request_resource.schema_url = expect_type(content.get("schemaUrl") or "", str, f"{path}.schemaUrl")
    for key, scope_key in _SCOPE_SPANS.items():
        for index, scope_spans in enumerate(expect_list(content.get(key), f"{path}.{key}")):
            scope_path = f"{path}.{key}[{index}]"
            reject_unknown_keys(
                expect_type(scope_spans, dict, scope_path), (scope_key, "schemaUrl", "spans"), scope_path
            )
            request_scope = request_resource.scope_spans.add()
            _fill_message(request_scope.scope, scope_spans.get(scope_key), f"{scope_path}.{scope_key}", _SPAN_DEPTH)
            reject_duplicate_keys(request_scope.scope.attributes, f"{scope_path}.{scope_key}")
            request_scope.schema_url = expect_type(scope_spans.get("schemaUrl") or "", str, f"{scope_path}.schemaUrl")
            first = size = 0
            for span_index, span in enumerate(expect_list(scope_spans.get("spans"), f"{scope_path}.spans")):
                message = request_scope.spans.add()
                _fill_message(message, span, f"{scope_path}.spans[{span_index}]", _SPAN_DEPTH)
                reject_duplicate_keys_in_span(message, f"{scope_path}.spans[{span_index}]")
                size += message.ByteSize()
                if size > _REQUEST_BYTES:
                    yield LocatedRequest(request.SerializeToString(), location, scope_path, first)
                    first, size = span_index + 1, 0
                    del request_scope.spans[:]
            if size:
                yield LocatedRequest(request.SerializeToString(), location, scope_path, first)
            del request_resource.scope_spans[:]


def _fill_message(message: Message, value: Json, path: str, depth: int) -> None:
    try:
        parse_message(
            {} if value is None else _normalize_object(value, fields_by_key(message.DESCRIPTOR), path),
            message,
            path,
            depth,
        )
    except InvalidJson as error:
        raise UnreadableFile(str(error)) from None


def _normalize_object(value: Json, fields: Mapping[str, FieldDescriptor], path: str) -> Json:
    """Reject unknown fields; convert enums to numbers and ids to hex, which some tools write as names and base64."""
    if not isinstance(value, dict):
        return value  # parse_message reports the error
    reject_unknown_keys(value, fields, path)
    normalized = {}
    for key, content in value.items():
        if key not in fields:
            continue
        field, field_path = fields[key], join_path(path, key)
        if isinstance(content, list) and field.is_repeated:
            normalized[key] = [_normalize_value(each, field, f"{field_path}[{i}]") for i, each in enumerate(content)]
        else:
            normalized[key] = _normalize_value(content, field, field_path)
    return normalized


def _normalize_value(value: Json, field: FieldDescriptor, path: str) -> Json:
    if field.message_type is not None:
        return _normalize_object(value, fields_by_key(field.message_type), path)
    if field.enum_type is not None and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            raise_unreadable(path, f"{value!r} is not one of {', '.join(field.enum_type.values_by_name)}")
        return field.enum_type.values_by_name[value].number
    digits = _ID_DIGITS.get(field.name)
    if digits and isinstance(value, str) and len(value) == len(base64.b64encode(bytes(digits // 2))):
        try:
            return base64.b64decode(value, validate=True).hex()
        except binascii.Error:
            raise_unreadable(path, f"{value!r} is an id neither in hexadecimal digits nor in base64")
    return value
