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

from spanproof.collector.files.documents import Json, UnreadableFile, check_keys, join, refuse, take, take_list
from spanproof.collector.files.pieces import Piece, refuse_doubled, refuse_doubled_in_span
from spanproof.collector.otlp_json import InvalidJson, fields_by_key, parse_message

if TYPE_CHECKING:
    from google.protobuf.message import Message

# What documents of OTLP hold, by the key that says so.
TRACES: Final = ("resourceSpans", "batches")
OTHERS: Final = {"resourceLogs": "logs", "resourceMetrics": "metrics"}
_SCOPE_SPANS: Final = {"scopeSpans": "scope", "instrumentationLibrarySpans": "instrumentationLibrary"}
_PIECE_BYTES: Final = 2**20
# Where a resource, a scope and a span stand in a request.
_RESOURCE_DEPTH, _SPAN_DEPTH = 3, 4
_ID_DIGITS: Final = {"trace_id": 32, "span_id": 16, "parent_span_id": 16}


def split_otlp(document: Json, place: str, skipped: Counter[str]) -> Iterator[Piece]:
    """Make requests of the spans of a document, and count in `skipped` what else it holds. Raises UnreadableFile."""
    check_keys(take(document, dict, ""), (*TRACES, *OTHERS), "")
    for key, name in OTHERS.items():
        skipped[name] += key in document
    for key in TRACES:
        for index, content in enumerate(take_list(document.get(key), key)):
            yield from _split_resource_spans(content, f"{key}[{index}]", place)


def _split_resource_spans(content: Json, path: str, place: str) -> Iterator[Piece]:
    check_keys(take(content, dict, path), ("resource", "schemaUrl", *_SCOPE_SPANS), path)
    head = ExportTraceServiceRequest()
    of_resource = head.resource_spans.add()
    _fill(of_resource.resource, content.get("resource"), f"{path}.resource", _RESOURCE_DEPTH)
    refuse_doubled(of_resource.resource.attributes, f"{path}.resource")
    of_resource.schema_url = take(content.get("schemaUrl") or "", str, f"{path}.schemaUrl")
    for key, scope_key in _SCOPE_SPANS.items():
        for index, scope_spans in enumerate(take_list(content.get(key), f"{path}.{key}")):
            where = f"{path}.{key}[{index}]"
            check_keys(take(scope_spans, dict, where), (scope_key, "schemaUrl", "spans"), where)
            of_scope = of_resource.scope_spans.add()
            _fill(of_scope.scope, scope_spans.get(scope_key), f"{where}.{scope_key}", _SPAN_DEPTH)
            refuse_doubled(of_scope.scope.attributes, f"{where}.{scope_key}")
            of_scope.schema_url = take(scope_spans.get("schemaUrl") or "", str, f"{where}.schemaUrl")
            first = size = 0
            for number, span in enumerate(take_list(scope_spans.get("spans"), f"{where}.spans")):
                message = of_scope.spans.add()
                _fill(message, span, f"{where}.spans[{number}]", _SPAN_DEPTH)
                refuse_doubled_in_span(message, f"{where}.spans[{number}]")
                size += message.ByteSize()
                if size > _PIECE_BYTES:
                    yield Piece(head.SerializeToString(), place, where, first)
                    first, size = number + 1, 0
                    del of_scope.spans[:]
            if size:
                yield Piece(head.SerializeToString(), place, where, first)
            del of_resource.scope_spans[:]


def _fill(message: Message, value: Json, path: str, depth: int) -> None:
    try:
        parse_message(
            {} if value is None else _translate(value, fields_by_key(message.DESCRIPTOR), path), message, path, depth
        )
    except InvalidJson as error:
        raise UnreadableFile(str(error)) from None


def _translate(value: Json, fields: Mapping[str, FieldDescriptor], path: str) -> Json:
    """Refuse unknown fields; give enums as numbers and ids in hex, which some write by name and in base64."""
    if not isinstance(value, dict):
        return value  # what reads it says what is wrong
    check_keys(value, fields, path)
    translated = {}
    for key, content in value.items():
        if key not in fields:
            continue
        field, where = fields[key], join(path, key)
        if isinstance(content, list) and field.is_repeated:
            translated[key] = [_translate_one(each, field, f"{where}[{i}]") for i, each in enumerate(content)]
        else:
            translated[key] = _translate_one(content, field, where)
    return translated


def _translate_one(value: Json, field: FieldDescriptor, path: str) -> Json:
    if field.message_type is not None:
        return _translate(value, fields_by_key(field.message_type), path)
    if field.enum_type is not None and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            refuse(path, f"{value!r} is not one of {', '.join(field.enum_type.values_by_name)}")
        return field.enum_type.values_by_name[value].number
    digits = _ID_DIGITS.get(field.name)
    if digits and isinstance(value, str) and len(value) == len(base64.b64encode(bytes(digits // 2))):
        try:
            return base64.b64decode(value, validate=True).hex()
        except binascii.Error:
            refuse(path, f"{value!r} is an id neither in hexadecimal digits nor in base64")
    return value
