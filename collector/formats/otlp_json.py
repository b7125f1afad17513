"""OTLP/JSON documents, those of Tempo and of older versions too → trace requests of bounded size.

Unlike what comes over the wire, where OTLP wants unknown fields to be ignored, a field that is not known is refused.
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

# What documents of OTLP hold, by the key that says so.
TRACES_KEYS: Final = ("resourceSpans", "batches")
OTHER_SIGNALS_BY_KEY: Final = {"resourceLogs": "logs", "resourceMetrics": "metrics"}
_SCOPE_SPANS: Final = {"scopeSpans": "scope", "instrumentationLibrarySpans": "instrumentationLibrary"}
_REQUEST_BYTES: Final = 2**20
# Where a resource, a scope and a span stand in a request.
_RESOURCE_DEPTH, _SPAN_DEPTH = 3, 4
_ID_DIGITS: Final = {"trace_id": 32, "span_id": 16, "parent_span_id": 16}


def split_otlp_document(document: Json, place: str, skipped: Counter[str]) -> Iterator[LocatedRequest]:
    """Make requests of the spans of a document, and count in `skipped` what else it holds. Raises UnreadableFile."""
    reject_unknown_keys(expect_type(document, dict, ""), (*TRACES_KEYS, *OTHER_SIGNALS_BY_KEY), "")
    for key, name in OTHER_SIGNALS_BY_KEY.items():
        skipped[name] += key in document
    for key in TRACES_KEYS:
        for index, content in enumerate(expect_list(document.get(key), key)):
            yield from _split_resource_spans(content, f"{key}[{index}]", place)


def _split_resource_spans(content: Json, path: str, place: str) -> Iterator[LocatedRequest]:
    reject_unknown_keys(expect_type(content, dict, path), ("resource", "schemaUrl", *_SCOPE_SPANS), path)
    head = ExportTraceServiceRequest()
    of_resource = head.resource_spans.add()
    _fill_message(of_resource.resource, content.get("resource"), f"{path}.resource", _RESOURCE_DEPTH)
    reject_duplicate_keys(of_resource.resource.attributes, f"{path}.resource")
    of_resource.schema_url = expect_type(content.get("schemaUrl") or "", str, f"{path}.schemaUrl")
    for key, scope_key in _SCOPE_SPANS.items():
        for index, scope_spans in enumerate(expect_list(content.get(key), f"{path}.{key}")):
            where = f"{path}.{key}[{index}]"
            reject_unknown_keys(expect_type(scope_spans, dict, where), (scope_key, "schemaUrl", "spans"), where)
            of_scope = of_resource.scope_spans.add()
            _fill_message(of_scope.scope, scope_spans.get(scope_key), f"{where}.{scope_key}", _SPAN_DEPTH)
            reject_duplicate_keys(of_scope.scope.attributes, f"{where}.{scope_key}")
            of_scope.schema_url = expect_type(scope_spans.get("schemaUrl") or "", str, f"{where}.schemaUrl")
            first = size = 0
            for number, span in enumerate(expect_list(scope_spans.get("spans"), f"{where}.spans")):
                message = of_scope.spans.add()
                _fill_message(message, span, f"{where}.spans[{number}]", _SPAN_DEPTH)
                reject_duplicate_keys_in_span(message, f"{where}.spans[{number}]")
                size += message.ByteSize()
                if size > _REQUEST_BYTES:
                    yield LocatedRequest(head.SerializeToString(), place, where, first)
                    first, size = number + 1, 0
                    del of_scope.spans[:]
            if size:
                yield LocatedRequest(head.SerializeToString(), place, where, first)
            del of_resource.scope_spans[:]


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
    """Refuse unknown fields; give enums as numbers and ids in hex, which some write by name and in base64."""
    if not isinstance(value, dict):
        return value  # what reads it says what is wrong
    reject_unknown_keys(value, fields, path)
    translated = {}
    for key, content in value.items():
        if key not in fields:
            continue
        field, where = fields[key], join_path(path, key)
        if isinstance(content, list) and field.is_repeated:
            translated[key] = [_normalize_value(each, field, f"{where}[{i}]") for i, each in enumerate(content)]
        else:
            translated[key] = _normalize_value(content, field, where)
    return translated


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
