"""OTLP/JSON documents, also in answers of Tempo and Jaeger and of older versions → trace requests of bounded size.

An unknown field is an error or a warning, unlike in export requests, where OTLP requires that it is ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.formats.import_log import ImportLog
from spanproof.collector.formats.json_documents import (
    Json,
    UnreadableFile,
    expect_list,
    expect_type,
    join_path,
    raise_unreadable,
)
from spanproof.collector.formats.requests import LocatedRequest
from spanproof.collector.otlp.json_mapping import InvalidJson, fields_by_key, parse_message

if TYPE_CHECKING:
    from google.protobuf.message import Message

# Top-level keys of OTLP documents, by their signal.
TRACES_KEYS: Final = ("resourceSpans", "batches")
OTHER_SIGNALS_BY_KEY: Final = {"resourceLogs": "logs", "resourceMetrics": "metrics"}
ERROR_KEY: Final = "error"
# Keys of answers that contain a document, and what else is in such an answer: a failed query of Jaeger, a stream of
# Jaeger, a trace of Tempo, and a list of documents.
WRAPPER_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    ERROR_KEY: ("code", "details", "message"),
    "result": (),
    "trace": ("metrics", "status", "message"),
    "traces": ("metrics", "status", "message"),
}
_PARTIAL: Final = ("PARTIAL", 1)
_MAX_WRAPPERS: Final = 4
_SCOPE_SPANS: Final = {"scopeSpans": "scope", "instrumentationLibrarySpans": "instrumentationLibrary"}
_REQUEST_BYTES: Final = 2**18
# Depths of a resource, a scope and a span in a request.
_RESOURCE_DEPTH, _SPAN_DEPTH = 3, 4
_ID_DIGITS: Final = {"trace_id": 32, "span_id": 16, "parent_span_id": 16}


def split_otlp_document(document: Json, location: str, log: ImportLog) -> Iterator[LocatedRequest]:
    """Yield requests for the spans of a document, or of a list or an answer that contains documents.

    Other signals are counted as skipped. Raises UnreadableFile.
    """
    for path, inner in _unwrap_answers(document, "", log):
        log.check_keys(expect_type(inner, dict, path), (*TRACES_KEYS, *OTHER_SIGNALS_BY_KEY), path)
        for key, name in OTHER_SIGNALS_BY_KEY.items():
            log.skipped[name] += key in inner
        for key in TRACES_KEYS:
            key_path = join_path(path, key)
            for index, content in enumerate(expect_list(inner.get(key), key_path)):
                yield from _split_resource_spans(content, f"{key_path}[{index}]", location, log)


def _unwrap_answers(document: Json, path: str, log: ImportLog, depth: int = 0) -> Iterator[tuple[str, Json]]:
    """Yield the OTLP documents in a document, each with its path."""
    if depth > _MAX_WRAPPERS:
        raise_unreadable(path, "nested too deeply")
    if not isinstance(document, dict):
        for index, item in enumerate(expect_list(document, path)):
            yield from _unwrap_answers(item, f"{path}[{index}]", log, depth + 1)
        return
    wrapper = next((key for key in WRAPPER_KEYS if key in document), None)
    if wrapper is None:
        yield path, document
        return
    log.check_keys(document, (wrapper, *WRAPPER_KEYS[wrapper]), path)
    inner_path = join_path(path, wrapper)
    content = document[wrapper]
    if wrapper == ERROR_KEY:
        reason = content.get("message") if isinstance(content, dict) else content
        raise_unreadable(inner_path, f"the query that wrote this file failed: {reason}")
    if wrapper == "traces" and isinstance(content, Sequence) and any("traceID" in trace for trace in content):
        raise_unreadable(inner_path, "the result of a search, without spans; export each trace by its id")
    if document.get("status") in _PARTIAL or document.get("message"):
        reason = f": {document['message']}" if document.get("message") else ""
        log.notes.append(f"{path or '$'}: Tempo answered with a part of the trace{reason}")
    yield from _unwrap_answers({} if content is None else content, inner_path, log, depth + 1)


def _split_resource_spans(content: Json, path: str, location: str, log: ImportLog) -> Iterator[LocatedRequest]:
    log.check_keys(expect_type(content, dict, path), ("resource", "schemaUrl", *_SCOPE_SPANS), path)
    request = ExportTraceServiceRequest()
    request_resource = request.resource_spans.add()
    _fill_message(request_resource.resource, content.get("resource"), f"{path}.resource", _RESOURCE_DEPTH, log)
    request_resource.schema_url = expect_type(content.get("schemaUrl") or "", str, f"{path}.schemaUrl")
    for key, scope_key in _SCOPE_SPANS.items():
        for index, scope_spans in enumerate(expect_list(content.get(key), f"{path}.{key}")):
            scope_path = f"{path}.{key}[{index}]"
            log.check_keys(expect_type(scope_spans, dict, scope_path), (scope_key, "schemaUrl", "spans"), scope_path)
            request_scope = request_resource.scope_spans.add()
            scope = scope_spans.get(scope_key)
            _fill_message(request_scope.scope, scope, f"{scope_path}.{scope_key}", _SPAN_DEPTH, log)
            request_scope.schema_url = expect_type(scope_spans.get("schemaUrl") or "", str, f"{scope_path}.schemaUrl")
            first = size = 0
            for span_index, span in enumerate(expect_list(scope_spans.get("spans"), f"{scope_path}.spans")):
                message = request_scope.spans.add()
                _fill_message(message, span, f"{scope_path}.spans[{span_index}]", _SPAN_DEPTH, log)
                size += message.ByteSize()
                if size > _REQUEST_BYTES:
                    yield LocatedRequest(request.SerializeToString(), location, scope_path, first)
                    first, size = span_index + 1, 0
                    del request_scope.spans[:]
            if size:
                yield LocatedRequest(request.SerializeToString(), location, scope_path, first)
            del request_resource.scope_spans[:]


def _fill_message(message: Message, value: Json, path: str, depth: int, log: ImportLog) -> None:
    try:
        parse_message(
            {} if value is None else _normalize_object(value, fields_by_key(message.DESCRIPTOR), path, log),
            message,
            path,
            depth,
        )
    except InvalidJson as error:
        raise UnreadableFile(str(error)) from None


def _normalize_object(value: Json, fields: Mapping[str, FieldDescriptor], path: str, log: ImportLog) -> Json:
    """Check the keys, and convert ids that a tool wrote as base64 to hex."""
    if not isinstance(value, dict):
        return value  # parse_message reports the error
    log.check_keys(value, fields, path)
    normalized = {}
    for key, content in value.items():
        if key not in fields:
            continue
        field, field_path = fields[key], join_path(path, key)
        if isinstance(content, list) and field.is_repeated:
            normalized[key] = [
                _normalize_value(each, field, f"{field_path}[{i}]", log) for i, each in enumerate(content)
            ]
        else:
            normalized[key] = _normalize_value(content, field, field_path, log)
    return normalized


def _normalize_value(value: Json, field: FieldDescriptor, path: str, log: ImportLog) -> Json:
    if field.message_type is not None:
        return _normalize_object(value, fields_by_key(field.message_type), path, log)
    digits = _ID_DIGITS.get(field.name)
    if digits and isinstance(value, str) and len(value) == len(base64.b64encode(bytes(digits // 2))):
        try:
            return base64.b64decode(value, validate=True).hex()
        except binascii.Error:
            raise_unreadable(path, f"{value!r} is an id neither in hexadecimal digits nor in base64")
    return value
