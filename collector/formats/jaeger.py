"""Jaeger JSON, from its query service or its UI → OTLP/JSON.

The mapping of tags is the inverse of https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/jaeger/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from spanproof.collector.formats.import_log import ImportLog
from spanproof.collector.formats.jaeger_protobuf import (
    convert_process_map,
    convert_protobuf_span,
    is_protobuf_span,
)
from spanproof.collector.formats.json_documents import (
    STATUS_CODES,
    Json,
    expect_array,
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
)

SPAN_KIND_NUMBERS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
DOCUMENT_KEYS: Final = frozenset(("data", "total", "limit", "offset", "errors"))
STATE_KEYS: Final = frozenset(("id", "state"))
TRACE_KEYS: Final = frozenset(("traceID", "spans", "processes", "processMap", "warnings"))
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
        "process",
        "warnings",
    )
)
# What Jaeger's UI computes from a trace, and keeps in it.
COMPUTED_TRACE_KEYS: Final = frozenset(
    (
        "duration",
        "endTime",
        "nodesBySpanId",
        "orphanSpanCount",
        "rootSpans",
        "services",
        "spanMap",
        "startTime",
        "traceEmoji",
        "traceName",
        "tracePageTitle",
        "tree",
    )
)
COMPUTED_SPAN_KEYS: Final = frozenset(
    (
        "childSpanCount",
        "childSpanIds",
        "childSpans",
        "depth",
        "hasChildren",
        "relativeStartTime",
        "subsidiarilyReferencedBy",
    )
)
_KNOWN_TRACE_KEYS: Final = TRACE_KEYS | COMPUTED_TRACE_KEYS
_KNOWN_SPAN_KEYS: Final = SPAN_KEYS | COMPUTED_SPAN_KEYS
# The UI adds the span that is referenced.
REFERENCE_KEYS: Final = frozenset(("refType", "traceID", "spanID", "span"))
SAMPLED_FLAG: Final = 1
_INT64: Final = range(-(2**63), 2**63)
_SPANS_PER_DOCUMENT: Final = 500
_TRUE: Final = ({"boolValue": True}, {"stringValue": "true"})


def convert_jaeger(document: Json, log: ImportLog, path: str = "") -> Iterator[dict[str, Json]]:
    """Yield the spans of a Jaeger document, one trace or many, as OTLP/JSON documents. Raise UnreadableFile."""
    if not isinstance(document, dict):
        for index, item in enumerate(expect_array(document, path)):
            yield from convert_jaeger(expect_type(item, dict, f"{path}[{index}]"), log, f"{path}[{index}]")
        return
    if "data" not in document:
        yield from _convert_trace(document, path, log)
        return
    traces, data_path = document["data"], join_path(path, "data")
    is_single = isinstance(traces, dict)  # as the UI keeps a trace in its state
    log.check_keys(document, DOCUMENT_KEYS | STATE_KEYS if is_single else DOCUMENT_KEYS, path)
    if document.get("errors"):
        raise_unreadable(
            join_path(path, "errors"), f"the query that wrote this file failed{_format_errors(document['errors'])}"
        )
    if is_single:
        yield from _convert_trace(traces, data_path, log)
        return
    for index, trace in enumerate(expect_list(traces, data_path)):
        yield from _convert_trace(trace, f"{data_path}[{index}]", log)


def _format_errors(errors: Json) -> str:
    messages = [str(each["msg"]) for each in errors if isinstance(each, dict) and each.get("msg")]
    return f": {'; '.join(messages)}" if messages else ""


def _convert_trace(trace: Json, path: str, log: ImportLog) -> Iterator[dict[str, Json]]:
    """Yield the spans of a trace, some at a time: as Python objects, they take several times their size."""
    log.check_keys(expect_type(trace, dict, path), _KNOWN_TRACE_KEYS, path)
    processes = _Processes(trace, path, log)
    warnings = _read_texts(trace.get("warnings"), join_path(path, "warnings"))
    by_process: dict[str, list[dict[str, Json]]] = {}
    for index, span in enumerate(expect_array(trace.get("spans"), join_path(path, "spans"))):
        span_path = join_path(path, f"spans[{index}]")
        if is_protobuf_span(span):
            span = convert_protobuf_span(span, span_path, log)
        log.check_keys(expect_type(span, dict, span_path), _KNOWN_SPAN_KEYS, span_path)
        process = processes.find(span, span_path)
        scope, converted = _convert_span(span, span_path, log)
        if warnings and not index:
            converted["attributes"].append(make_attribute("jaeger.trace.warnings", warnings))
        scope_spans_list = by_process.setdefault(process, [])
        if not scope_spans_list or scope_spans_list[-1]["scope"] != scope:
            scope_spans_list.append({"scope": scope, "spans": []})
        scope_spans_list[-1]["spans"].append(converted)
        if index % _SPANS_PER_DOCUMENT == _SPANS_PER_DOCUMENT - 1:
            yield processes.make_document(by_process)
            by_process = {}
    yield processes.make_document(by_process)


class _Processes:
    """The processes of a trace, or those that its spans contain, as resources."""

    def __init__(self, trace: Mapping[str, Json], path: str, log: ImportLog) -> None:
        self._path = join_path(path, "processes")
        self._log = log
        self._processes = expect_type(trace.get("processes") or {}, dict, self._path)
        if trace.get("processMap"):
            self._processes |= convert_process_map(trace["processMap"], join_path(path, "processMap"), log)
        self._resources: dict[str, dict[str, Json]] = {}

    def find(self, span: Mapping[str, Json], path: str) -> str:
        """Return the key of the process of a span."""
        if not span.get("processID") and span.get("process"):
            process = span["process"]
            key = f"process {json.dumps(process, sort_keys=True)}"
            self._add(key, process, f"{path}.process")
            return key
        key = expect_type(span.get("processID"), str, f"{path}.processID")
        if key not in self._processes:
            raise_unreadable(f"{path}.processID", f"{key!r} is not among the processes")
        self._add(key, self._processes[key], f"{self._path}.{key}")
        return str(key)

    def _add(self, key: str, process: Json, path: str) -> None:
        if key not in self._resources:
            self._resources[key] = _convert_process(process, path, self._log)

    def make_document(self, by_process: Mapping[str, list[dict[str, Json]]]) -> dict[str, Json]:
        """Return an OTLP/JSON document of spans."""
        return {
            "resourceSpans": [
                {"resource": self._resources[process], "scopeSpans": scope_spans}
                for process, scope_spans in by_process.items()
            ]
        }


def _convert_process(process: Json, path: str, log: ImportLog) -> dict[str, Json]:
    log.check_keys(expect_type(process, dict, path), ("serviceName", "tags"), path)
    service = make_attribute("service.name", expect_type(process.get("serviceName"), str, f"{path}.serviceName"))
    tags = _read_tags(process.get("tags"), f"{path}.tags", log)
    if any(tag["key"] == service["key"] and tag != service for tag in tags):
        raise_unreadable(f"{path}.tags", "service.name differs from serviceName")
    return {"attributes": merge_duplicate_keys([service, *tags])}


def _convert_span(span: Mapping[str, Json], path: str, log: ImportLog) -> tuple[dict[str, str], dict[str, Json]]:
    """Return the scope of a span, and the span."""
    tags = _read_tags(span.get("tags"), f"{path}.tags", log)
    start_ns = parse_microseconds(span.get("startTime"), f"{path}.startTime")
    # a span without a duration has not ended
    end_ns = 0 if span.get("duration") is None else start_ns + parse_microseconds(span["duration"], f"{path}.duration")
    flags = expect_type(span.get("flags") or 0, int, f"{path}.flags")
    if flags & ~SAMPLED_FLAG:  # the other bits have another meaning in OTLP
        tags.append(make_attribute("jaeger.flags", flags))
    converted: dict[str, Json] = {
        "traceId": parse_hex_id(span.get("traceID"), 32, f"{path}.traceID"),
        "spanId": parse_hex_id(span.get("spanID"), 16, f"{path}.spanID"),
        "flags": flags & SAMPLED_FLAG,
        "name": expect_type(span.get("operationName"), str, f"{path}.operationName"),
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(end_ns),
        "events": [
            _convert_log(each, f"{path}.logs[{index}]", log)
            for index, each in enumerate(expect_list(span.get("logs"), f"{path}.logs"))
        ],
    }
    _add_references(converted, span, path, log)
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


def _add_references(converted: dict[str, Json], span: Mapping[str, Json], path: str, log: ImportLog) -> None:
    """Set the parent as Jaeger does, and make links of all references that the parent does not cover."""
    parent = parse_hex_id(span.get("parentSpanID") or "0", 16, f"{path}.parentSpanID", optional=True)
    references = []
    for index, reference in enumerate(expect_list(span.get("references"), f"{path}.references")):
        reference_path = f"{path}.references[{index}]"
        log.check_keys(expect_type(reference, dict, reference_path), REFERENCE_KEYS, reference_path)
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


def _convert_log(entry: Json, path: str, log: ImportLog) -> dict[str, Json]:
    log.check_keys(expect_type(entry, dict, path), ("timestamp", "fields"), path)
    fields = _read_tags(entry.get("fields"), f"{path}.fields", log)
    at_ns = parse_microseconds(entry.get("timestamp"), f"{path}.timestamp")
    name = pop_text(fields, "event") or ""
    return {"timeUnixNano": str(at_ns), "name": name, "attributes": merge_duplicate_keys(fields)}


def _read_tags(tags: Json, path: str, log: ImportLog) -> list[dict[str, Json]]:
    attributes = []
    for index, tag in enumerate(expect_list(tags, path)):
        tag_path = f"{path}[{index}]"
        log.check_keys(expect_type(tag, dict, tag_path), ("key", "type", "value"), tag_path)
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
