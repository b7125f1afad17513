"""Jaeger JSON, as its query service and page give it → OTLP/JSON.

What becomes of which tag: https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/jaeger/, read backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from spanproof.collector.files.documents import (
    STATUS_CODES,
    Json,
    attribute,
    check_keys,
    join,
    join_doubled,
    pop_scope,
    pop_text,
    read_hex,
    read_micros,
    refuse,
    take,
    take_list,
)

KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
DOCUMENT: Final = frozenset(("data", "total", "limit", "offset", "errors"))
TRACE: Final = frozenset(("traceID", "spans", "processes", "warnings"))
SPAN: Final = frozenset(
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
REFERENCE: Final = frozenset(("refType", "traceID", "spanID"))
SAMPLED: Final = 1
_INT64: Final = range(-(2**63), 2**63)
_TRUE: Final = ({"boolValue": True}, {"stringValue": "true"})


def convert_jaeger(document: Json) -> dict[str, Json]:
    """Return the spans of a Jaeger document, one trace or many, as OTLP/JSON. Raises UnreadableFile."""
    document = take(document, dict, "")
    if "data" not in document:
        return {"resourceSpans": _convert_trace(document, "")}
    traces = take(document["data"], list, "data")
    check_keys(document, DOCUMENT, "")
    if document.get("errors"):
        refuse("errors", "the query that wrote this file failed")
    return {
        "resourceSpans": [
            each for index, trace in enumerate(traces) for each in _convert_trace(trace, f"data[{index}]")
        ]
    }


def _convert_trace(trace: Json, path: str) -> list[dict[str, Json]]:
    check_keys(take(trace, dict, path), TRACE, path)
    processes = take(trace.get("processes") or {}, dict, join(path, "processes"))
    warnings = _read_texts(trace.get("warnings"), join(path, "warnings"))
    by_process: dict[str, list[dict[str, Json]]] = {}
    for index, span in enumerate(take(trace.get("spans"), list, join(path, "spans"))):
        where = join(path, f"spans[{index}]")
        check_keys(take(span, dict, where), SPAN, where)
        process = take(span.get("processID"), str, f"{where}.processID")
        if process not in processes:
            refuse(f"{where}.processID", f"{process!r} is not among the processes")
        scope, converted = _convert_span(span, where)
        if warnings and not index:
            converted["attributes"].append(attribute("jaeger.trace.warnings", warnings))
        of_process = by_process.setdefault(process, [])
        if not of_process or of_process[-1]["scope"] != scope:
            of_process.append({"scope": scope, "spans": []})
        of_process[-1]["spans"].append(converted)
    return [
        {
            "resource": _convert_process(processes[process], join(path, f"processes.{process}")),
            "scopeSpans": scope_spans,
        }
        for process, scope_spans in by_process.items()
    ]


def _convert_process(process: Json, path: str) -> dict[str, Json]:
    check_keys(take(process, dict, path), ("serviceName", "tags"), path)
    service = attribute("service.name", take(process.get("serviceName"), str, f"{path}.serviceName"))
    tags = _read_tags(process.get("tags"), f"{path}.tags")
    if any(tag["key"] == service["key"] and tag != service for tag in tags):
        refuse(f"{path}.tags", "service.name is not what serviceName says")
    return {"attributes": join_doubled([service, *tags])}


def _convert_span(span: Mapping[str, Json], path: str) -> tuple[dict[str, str], dict[str, Json]]:
    """Return the scope that a span came from, and the span."""
    tags = _read_tags(span.get("tags"), f"{path}.tags")
    start_ns = read_micros(span.get("startTime"), f"{path}.startTime")
    flags = take(span.get("flags") or 0, int, f"{path}.flags")
    if flags & ~SAMPLED:  # the other bits mean something else in OTLP
        tags.append(attribute("jaeger.flags", flags))
    converted: dict[str, Json] = {
        "traceId": read_hex(span.get("traceID"), 32, f"{path}.traceID"),
        "spanId": read_hex(span.get("spanID"), 16, f"{path}.spanID"),
        "flags": flags & SAMPLED,
        "name": take(span.get("operationName"), str, f"{path}.operationName"),
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + read_micros(span.get("duration"), f"{path}.duration")),
        "events": [
            _convert_log(log, f"{path}.logs[{index}]")
            for index, log in enumerate(take_list(span.get("logs"), f"{path}.logs"))
        ],
    }
    _add_references(converted, span, path)
    scope = pop_scope(tags)
    if (state := pop_text(tags, "w3c.tracestate")) is not None:
        converted["traceState"] = state
    if (kind := pop_text(tags, "span.kind", KINDS)) is not None:
        converted["kind"] = KINDS[kind]
    code, message = pop_text(tags, "otel.status_code", STATUS_CODES), pop_text(tags, "otel.status_description")
    if code is None and any(tag["key"] == "error" and tag["value"] in _TRUE for tag in tags):
        code = "ERROR"
    if code is not None or message is not None:
        converted["status"] = {"code": STATUS_CODES[code or "UNSET"], "message": message or ""}
    if warnings := _read_texts(span.get("warnings"), f"{path}.warnings"):
        tags.append(attribute("jaeger.warnings", warnings))
    converted["attributes"] = join_doubled(tags)
    return scope, converted


def _add_references(converted: dict[str, Json], span: Mapping[str, Json], path: str) -> None:
    """Find the parent as Jaeger does, and make links of all references that `parentSpanId` does not say."""
    parent = read_hex(span.get("parentSpanID") or "0", 16, f"{path}.parentSpanID", optional=True)
    references = []
    for index, reference in enumerate(take_list(span.get("references"), f"{path}.references")):
        where = f"{path}.references[{index}]"
        check_keys(take(reference, dict, where), REFERENCE, where)
        kind = reference.get("refType")
        if kind not in ("CHILD_OF", "FOLLOWS_FROM"):
            refuse(f"{where}.refType", f"{kind!r} is neither CHILD_OF nor FOLLOWS_FROM")
        trace_id = read_hex(reference.get("traceID"), 32, f"{where}.traceID", optional=True)
        references.append((kind, trace_id, read_hex(reference.get("spanID"), 16, f"{where}.spanID", optional=True)))
    here = [each for each in references if each[1] == converted["traceId"]]
    if not parent.strip("0"):
        # what a span follows is its parent where nothing else is
        parent = next((each[2] for each in sorted(here, key=lambda each: each[0])), parent)
    said = ("CHILD_OF", converted["traceId"], parent)
    if said in references:
        references.remove(said)
    converted["parentSpanId"] = parent
    converted["links"] = [
        {"traceId": trace_id, "spanId": span_id, "attributes": [attribute("opentracing.ref_type", kind.lower())]}
        for kind, trace_id, span_id in references
    ]


def _convert_log(log: Json, path: str) -> dict[str, Json]:
    check_keys(take(log, dict, path), ("timestamp", "fields"), path)
    fields = _read_tags(log.get("fields"), f"{path}.fields")
    at_ns = read_micros(log.get("timestamp"), f"{path}.timestamp")
    name = pop_text(fields, "event") or ""
    return {"timeUnixNano": str(at_ns), "name": name, "attributes": join_doubled(fields)}


def _read_tags(tags: Json, path: str) -> list[dict[str, Json]]:
    found = []
    for index, tag in enumerate(take_list(tags, path)):
        where = f"{path}[{index}]"
        check_keys(take(tag, dict, where), ("key", "type", "value"), where)
        key, kind = (take(tag.get(name), str, f"{where}.{name}") for name in ("key", "type"))
        if kind not in TYPES:
            refuse(f"{where}.type", f"{kind!r} is not a type: {', '.join(TYPES)}")
        found.append({"key": key, "value": TYPES[kind](tag.get("value"), f"{where}.value")})
    return found


def _read_int(value: Json, path: str) -> dict[str, Json]:
    # numbers that a browser could not hold are written as texts
    number = take(value, (int, str), path)
    try:
        number = int(number)
    except ValueError:
        refuse(path, f"{value!r} is no whole number")
    if number not in _INT64:
        refuse(path, f"{number} does not fit 64 bits")
    return {"intValue": number}


def _read_float(value: Json, path: str) -> dict[str, Json]:
    try:
        return {"doubleValue": float(take(value, (int, float), path))}
    except OverflowError:
        return refuse(path, "the number does not fit 64 bits")


TYPES: Final[Mapping[str, Callable[[Json, str], dict[str, Json]]]] = {
    "string": lambda value, path: {"stringValue": take(value, str, path)},
    "bool": lambda value, path: {"boolValue": take(value, bool, path)},
    "int64": _read_int,
    "float64": _read_float,
    "binary": lambda value, path: {"bytesValue": take(value, str, path)},
}


def _read_texts(value: Json, path: str) -> list[str]:
    return [take(each, str, f"{path}[{index}]") for index, each in enumerate(take_list(value, path))]
