"""Jaeger JSON, from its query service or its UI → OTLP/JSON.

The mapping of tags is the inverse of https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/jaeger/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from spanproof.collector.formats.json_documents import (
    STATUS_CODES,
    Json,
    expect_list,
    expect_type,
    join_path,
    make_attribute,
    merge_duplicate_keys,
    parse_hex_id,
    parse_microseconds,
    pop_scope,
    pop_text,
    raise_unreadable,
    reject_unknown_keys,
)

SPAN_KIND_NUMBERS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
DOCUMENT_KEYS: Final = frozenset(("data", "total", "limit", "offset", "errors"))
TRACE_KEYS: Final = frozenset(("traceID", "spans", "processes", "warnings"))
SPAN_KEYS: Final = frozenset(
    (
        "traceID",
        "spanID",
        "parentSpanID",
        "flags",
        "operationName",
        "references",
        "startTime",
        "duration",
        "tags",
        "logs",
        "processID",
        "warnings",
    )
)
REFERENCE_KEYS: Final = frozenset(("refType", "traceID", "spanID"))
SAMPLED_FLAG: Final = 1
_INT64: Final = range(-(2**63), 2**63)
_TRUE: Final = ({"boolValue": True}, {"stringValue": "true"})


def convert_jaeger(document: Json) -> dict[str, Json]:
    """Return the spans of a Jaeger document, one trace or many, as OTLP/JSON. Raise UnreadableFile."""
    document = expect_type(document, dict, "")
    if "data" not in document:
        return {"resourceSpans": _convert_trace(document, "")}
    traces = expect_type(document["data"], list, "data")
    reject_unknown_keys(document, DOCUMENT_KEYS, "")
    if document.get("errors"):
        raise_unreadable("errors", "the query that wrote this file failed")
    return {
        "resourceSpans": [
            resource_spans
            for index, trace in enumerate(traces)
            for resource_spans in _convert_trace(trace, f"data[{index}]")
        ]
    }


def _convert_trace(trace: Json, path: str) -> list[dict[str, Json]]:
    reject_unknown_keys(expect_type(trace, dict, path), TRACE_KEYS, path)
    processes = expect_type(trace.get("processes") or {}, dict, join_path(path, "processes"))
    warnings = _read_texts(trace.get("warnings"), join_path(path, "warnings"))
    by_process: dict[str, list[dict[str, Json]]] = {}
    for index, span in enumerate(expect_type(trace.get("spans"), list, join_path(path, "spans"))):
        span_path = join_path(path, f"spans[{index}]")
        reject_unknown_keys(expect_type(span, dict, span_path), SPAN_KEYS, span_path)
        process = expect_type(span.get("processID"), str, f"{span_path}.processID")
        if process not in processes:
            raise_unreadable(f"{span_path}.processID", f"{process!r} is not among the processes")
        scope, converted = _convert_span(span, span_path)
        if warnings and not index:
            converted["attributes"].append(make_attribute("jaeger.trace.warnings", warnings))
        scope_spans_list = by_process.setdefault(process, [])
        if not scope_spans_list or scope_spans_list[-1]["scope"] != scope:
            scope_spans_list.append({"scope": scope, "spans": []})
        scope_spans_list[-1]["spans"].append(converted)
    return [
        {
            "resource": _convert_process(processes[process], join_path(path, f"processes.{process}")),
            "scopeSpans": scope_spans,
        }
        for process, scope_spans in by_process.items()
    ]


def _convert_process(process: Json, path: str) -> dict[str, Json]:
    reject_unknown_keys(expect_type(process, dict, path), ("serviceName", "tags"), path)
    service = make_attribute("service.name", expect_type(process.get("serviceName"), str, f"{path}.serviceName"))
    tags = _read_tags(process.get("tags"), f"{path}.tags")
    if any(tag["key"] == service["key"] and tag != service for tag in tags):
        raise_unreadable(f"{path}.tags", "service.name differs from serviceName")
    return {"attributes": merge_duplicate_keys([service, *tags])}


def _convert_span(span: Mapping[str, Json], path: str) -> tuple[dict[str, str], dict[str, Json]]:
    """Return the scope of a span, and the span."""
    tags = _read_tags(span.get("tags"), f"{path}.tags")
    start_ns = parse_microseconds(span.get("startTime"), f"{path}.startTime")
    flags = expect_type(span.get("flags") or 0, int, f"{path}.flags")
    if flags & ~SAMPLED_FLAG:  # the other bits have another meaning in OTLP
        tags.append(make_attribute("jaeger.flags", flags))
    converted: dict[str, Json] = {
        "traceId": parse_hex_id(span.get("traceID"), 32, f"{path}.traceID"),
        "spanId": parse_hex_id(span.get("spanID"), 16, f"{path}.spanID"),
        "flags": flags & SAMPLED_FLAG,
        "name": expect_type(span.get("operationName"), str, f"{path}.operationName"),
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + parse_microseconds(span.get("duration"), f"{path}.duration")),
        "events": [
            _convert_log(log, f"{path}.logs[{index}]")
            for index, log in enumerate(expect_list(span.get("logs"), f"{path}.logs"))
        ],
    }
    _add_references(converted, span, path)
    scope = pop_scope(tags)
    if (state := pop_text(tags, "w3c.tracestate")) is not None:
        converted["traceState"] = state
    if (kind := pop_text(tags, "span.kind", SPAN_KIND_NUMBERS)) is not None:
        converted["kind"] = SPAN_KIND_NUMBERS[kind]
    code, message = pop_text(tags, "otel.status_code", STATUS_CODES), pop_text(tags, "otel.status_description")
    if code is None and any(tag["key"] == "error" and tag["value"] in _TRUE for tag in tags):
        code = "ERROR"
    if code is not None or message is not None:
        converted["status"] = {"code": STATUS_CODES[code or "UNSET"], "message": message or ""}
    if warnings := _read_texts(span.get("warnings"), f"{path}.warnings"):
        tags.append(make_attribute("jaeger.warnings", warnings))
    converted["attributes"] = merge_duplicate_keys(tags)
    return scope, converted


def _add_references(converted: dict[str, Json], span: Mapping[str, Json], path: str) -> None:
    """Set the parent as Jaeger does, and make links of all references that the parent does not cover."""
    parent = parse_hex_id(span.get("parentSpanID") or "0", 16, f"{path}.parentSpanID", optional=True)
    references = []
    for index, reference in enumerate(expect_list(span.get("references"), f"{path}.references")):
        reference_path = f"{path}.references[{index}]"
        reject_unknown_keys(expect_type(reference, dict, reference_path), REFERENCE_KEYS, reference_path)
        kind = reference.get("refType")
        if kind not in ("CHILD_OF", "FOLLOWS_FROM"):
            raise_unreadable(f"{reference_path}.refType", f"{kind!r} is neither CHILD_OF nor FOLLOWS_FROM")
        trace_id = parse_hex_id(reference.get("traceID"), 32, f"{reference_path}.traceID", optional=True)
        references.append(
            (kind, trace_id, parse_hex_id(reference.get("spanID"), 16, f"{reference_path}.spanID", optional=True))
        )
    same_trace = [reference for reference in references if reference[1] == converted["traceId"]]
    if not parent.strip("0"):
        # CHILD_OF sorts before FOLLOWS_FROM, which is the parent only without a CHILD_OF
        parent = next((span_id for _, _, span_id in sorted(same_trace, key=lambda reference: reference[0])), parent)
    parent_reference = ("CHILD_OF", converted["traceId"], parent)
    if parent_reference in references:
        references.remove(parent_reference)
    converted["parentSpanId"] = parent
    converted["links"] = [
        {"traceId": trace_id, "spanId": span_id, "attributes": [make_attribute("opentracing.ref_type", kind.lower())]}
        for kind, trace_id, span_id in references
    ]


def _convert_log(log: Json, path: str) -> dict[str, Json]:
    reject_unknown_keys(expect_type(log, dict, path), ("timestamp", "fields"), path)
    fields = _read_tags(log.get("fields"), f"{path}.fields")
    at_ns = parse_microseconds(log.get("timestamp"), f"{path}.timestamp")
    name = pop_text(fields, "event") or ""
    return {"timeUnixNano": str(at_ns), "name": name, "attributes": merge_duplicate_keys(fields)}


def _read_tags(tags: Json, path: str) -> list[dict[str, Json]]:
    attributes = []
    for index, tag in enumerate(expect_list(tags, path)):
        tag_path = f"{path}[{index}]"
        reject_unknown_keys(expect_type(tag, dict, tag_path), ("key", "type", "value"), tag_path)
        key, kind = (expect_type(tag.get(name), str, f"{tag_path}.{name}") for name in ("key", "type"))
        if kind not in TAG_READERS:
            raise_unreadable(f"{tag_path}.type", f"{kind!r} is not a type: {', '.join(TAG_READERS)}")
        attributes.append({"key": key, "value": TAG_READERS[kind](tag.get("value"), f"{tag_path}.value")})
    return attributes


def _read_int(value: Json, path: str) -> dict[str, Json]:
    # Jaeger writes numbers that exceed a JavaScript number as texts
    number = expect_type(value, (int, str), path)
    try:
        number = int(number)
    except ValueError:
        raise_unreadable(path, f"{value!r} is not a whole number")
    if number not in _INT64:
        raise_unreadable(path, f"{number} does not fit 64 bits")
    return {"intValue": number}


def _read_float(value: Json, path: str) -> dict[str, Json]:
    try:
        return {"doubleValue": float(expect_type(value, (int, float), path))}
    except OverflowError:
        return raise_unreadable(path, "the number does not fit 64 bits")


TAG_READERS: Final[Mapping[str, Callable[[Json, str], dict[str, Json]]]] = {
    "string": lambda value, path: {"stringValue": expect_type(value, str, path)},
    "bool": lambda value, path: {"boolValue": expect_type(value, bool, path)},
    "int64": _read_int,
    "float64": _read_float,
    "binary": lambda value, path: {"bytesValue": expect_type(value, str, path)},
}


def _read_texts(value: Json, path: str) -> list[str]:
    return [expect_type(each, str, f"{path}[{index}]") for index, each in enumerate(expect_list(value, path))]
