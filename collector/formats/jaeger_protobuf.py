"""Jaeger's protobuf model written as JSON, as gRPC clients print answers of `api_v2` → Jaeger JSON.

Format: https://github.com/jaegertracing/jaeger-idl/blob/main/proto/api_v2/model.proto.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from spanproof.collector.formats.import_log import ImportLog
from spanproof.collector.formats.json_documents import Json, expect_list, expect_type, raise_unreadable

# Keys of a span, by their names in the protobuf model.
SPAN_KEYS: Final = {
    "flags": "flags",
    "operationName": "operationName",
    "processId": "processID",
    "warnings": "warnings",
}
_CONVERTED_KEYS: Final = ("traceId", "spanId", "references", "startTime", "duration", "tags", "logs", "process")
# Value types: the type in Jaeger JSON, the key of the value, and the value that is left out.
_VALUE_TYPES: Final[Mapping[str, tuple[str, str, Json]]] = {
    "STRING": ("string", "vStr", ""),
    "BOOL": ("bool", "vBool", False),
    "INT64": ("int64", "vInt64", 0),
    "FLOAT64": ("float64", "vFloat64", 0),
    "BINARY": ("binary", "vBinary", ""),
}
_TYPE_NAMES: Final = tuple(_VALUE_TYPES)
_REFERENCE_TYPES: Final = ("CHILD_OF", "FOLLOWS_FROM")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_MICROSECONDS: Final = {"ns": "0.001", "us": "1", "µs": "1", "ms": "1000", "s": "1e6", "m": "6e7", "h": "3.6e9"}


def is_protobuf_span(span: Json) -> bool:
    """Return whether a span is in the protobuf model, whose ids have other names."""
    return isinstance(span, dict) and "traceId" in span and "traceID" not in span


def convert_protobuf_span(span: Mapping[str, Json], path: str, log: ImportLog) -> dict[str, Json]:
    """Return a span as Jaeger JSON; times are exact numbers of microseconds. Raise UnreadableFile."""
    log.check_keys(span, (*SPAN_KEYS, *_CONVERTED_KEYS), path)
    converted: dict[str, Json] = {key: span[name] for name, key in SPAN_KEYS.items() if span.get(name) is not None}
    converted |= {
        "traceID": _read_id(span.get("traceId"), f"{path}.traceId"),
        "spanID": _read_id(span.get("spanId"), f"{path}.spanId"),
        "startTime": _read_time(span.get("startTime"), f"{path}.startTime"),
        "duration": None if span.get("duration") is None else _read_duration(span["duration"], f"{path}.duration"),
        "references": [
            _convert_reference(reference, f"{path}.references[{index}]", log)
            for index, reference in enumerate(expect_list(span.get("references"), f"{path}.references"))
        ],
        "tags": _convert_tags(span.get("tags"), f"{path}.tags", log),
        "logs": [
            _convert_log(entry, f"{path}.logs[{index}]", log)
            for index, entry in enumerate(expect_list(span.get("logs"), f"{path}.logs"))
        ],
    }
    if span.get("process") is not None:
        converted["process"] = convert_protobuf_process(span["process"], f"{path}.process", log)
    return converted


def convert_protobuf_process(process: Json, path: str, log: ImportLog) -> dict[str, Json]:
    """Return a process as Jaeger JSON. Raise UnreadableFile."""
    log.check_keys(expect_type(process, dict, path), ("serviceName", "tags"), path)
    return {**process, "tags": _convert_tags(process.get("tags"), f"{path}.tags", log)}


def convert_process_map(entries: Json, path: str, log: ImportLog) -> dict[str, Json]:
    """Return the processes of a trace by their ids. Raise UnreadableFile."""
    processes: dict[str, Json] = {}
    for index, entry in enumerate(expect_list(entries, path)):
        entry_path = f"{path}[{index}]"
        log.check_keys(expect_type(entry, dict, entry_path), ("processId", "process"), entry_path)
        key = expect_type(entry.get("processId"), str, f"{entry_path}.processId")
        processes[key] = convert_protobuf_process(entry.get("process"), f"{entry_path}.process", log)
    return processes


def _convert_reference(reference: Json, path: str, log: ImportLog) -> dict[str, Json]:
    log.check_keys(expect_type(reference, dict, path), ("traceId", "spanId", "refType"), path)
    return {
        "traceID": _read_id(reference.get("traceId"), f"{path}.traceId"),
        "spanID": _read_id(reference.get("spanId"), f"{path}.spanId"),
        "refType": _read_enum(reference.get("refType"), _REFERENCE_TYPES, f"{path}.refType"),
    }


def _convert_log(entry: Json, path: str, log: ImportLog) -> dict[str, Json]:
    log.check_keys(expect_type(entry, dict, path), ("timestamp", "fields"), path)
    return {
        "timestamp": _read_time(entry.get("timestamp"), f"{path}.timestamp"),
        "fields": _convert_tags(entry.get("fields"), f"{path}.fields", log),
    }


def _convert_tags(tags: Json, path: str, log: ImportLog) -> list[dict[str, Json]]:
    converted = []
    for index, tag in enumerate(expect_list(tags, path)):
        tag_path = f"{path}[{index}]"
        kind = _read_enum(expect_type(tag, dict, tag_path).get("vType"), _TYPE_NAMES, f"{tag_path}.vType")
        type_name, value_key, default = _VALUE_TYPES[kind]
        log.check_keys(tag, ("key", "vType", value_key), tag_path)
        value = tag.get(value_key)
        converted.append({"key": tag.get("key"), "type": type_name, "value": default if value is None else value})
    return converted


def _read_enum(value: Json, names: tuple[str, ...], path: str) -> str:
    """Return the name of an enum, which may be a number; without a value, it is the first."""
    if value is None:
        return names[0]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    if value not in names:
        raise_unreadable(path, f"{value!r} is not one of {', '.join(names)}")
    return str(value)


def _read_id(value: Json, path: str) -> str:
    """Return an id as hexadecimal digits."""
    try:
        return base64.b64decode(expect_type(value, str, path), validate=True).hex()
    except binascii.Error:
        raise_unreadable(path, f"{value!r} is not an id in base64")


def _read_time(value: Json, path: str) -> Decimal:
    """Return a time as microseconds since 1970."""
    match = _TIME.fullmatch(expect_type(value, str, path))
    try:
        seconds = int(datetime.fromisoformat(match[1] + match[3]).timestamp()) if match else None
    except ValueError:
        seconds = None
    if match is None or seconds is None:
        raise_unreadable(path, f"{value!r} is not a time such as 2026-01-31T12:00:00.5Z")
    return Decimal(seconds) * 10**6 + Decimal(f"0.{match[2] or 0}") * 10**6


def _read_duration(value: Json, path: str) -> Decimal:
    """Return a duration as microseconds."""
    match = _DURATION.fullmatch(expect_type(value, str, path))
    if match is None:
        raise_unreadable(path, f"{value!r} is not a duration such as 0.001s")
    return Decimal(match[1]) * Decimal(_MICROSECONDS[match[2]])
