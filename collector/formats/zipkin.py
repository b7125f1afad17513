"""Zipkin JSON v2 → OTLP/JSON. Format: https://zipkin.io/zipkin-api/zipkin2-api.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from spanproof.collector.formats.import_log import ImportLog
from spanproof.collector.formats.json_documents import (
    STATUS_CODES,
    Json,
    expect_array,
    expect_list,
    expect_type,
    make_attribute,
    parse_hex_id,
    parse_microseconds,
    pop_scope,
    pop_text,
    raise_unreadable,
)

SPAN_KIND_NUMBERS: Final = {"CLIENT": 3, "SERVER": 2, "PRODUCER": 4, "CONSUMER": 5}
SPAN_KEYS: Final = frozenset(
    (
        "traceId",
        "parentId",
        "id",
        "kind",
        "name",
        "timestamp",
        "duration",
        "debug",
        "shared",
        "localEndpoint",
        "remoteEndpoint",
        "annotations",
        "tags",
    )
)
_SPANS_PER_DOCUMENT: Final = 500
ENDPOINT_KEYS: Final = frozenset(("serviceName", "ipv4", "ipv6", "port"))


def convert_zipkin(document: Json, log: ImportLog) -> Iterator[dict[str, Json]]:
    """Yield the spans of a Zipkin document, a list of spans or of traces, as OTLP/JSON documents. Raise UnreadableFile.

    In Zipkin, a span may lack its start if the other half of the call has it. It then gets the time of its first
    annotation, else the earliest start in its trace, and ``zipkin.timestamp_absent``. A span without a duration has
    no end.
    """
    earliest: dict[str, int] = {}
    for path, span in _list_spans(document):
        log.check_keys(expect_type(span, dict, path), SPAN_KEYS, path)
        trace = parse_hex_id(span.get("traceId"), 32, f"{path}.traceId")
        if span.get("timestamp"):
            start_ns = parse_microseconds(span["timestamp"], f"{path}.timestamp")
            earliest[trace] = min(start_ns, earliest.get(trace, start_ns))
    spans = _list_spans(document)
    while some := list(islice(spans, _SPANS_PER_DOCUMENT)):  # all at once would take several times their size
        yield _convert_spans(some, earliest, log)


def _convert_spans(
    spans: list[tuple[str, Json]], earliest: Mapping[str, int], log: ImportLog
) -> dict[str, list[dict[str, Json]]]:
    services: dict[str | None, list[dict[str, Json]]] = {}
    for path, span in spans:
        service, scope_spans = _convert_span(span, earliest, path, log)
        services.setdefault(service, []).append(scope_spans)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [] if service is None else [make_attribute("service.name", service)]},
                "scopeSpans": _merge_scopes(scope_spans_list),
            }
            for service, scope_spans_list in services.items()
        ]
    }


def _list_spans(document: Json) -> Iterator[tuple[str, Json]]:
    for index, item in enumerate(expect_array(document, "")):
        if isinstance(item, dict | str):
            yield f"[{index}]", item
        else:
            for position, span in enumerate(expect_array(item, f"[{index}]")):
                yield f"[{index}][{position}]", span


def _merge_scopes(scope_spans_list: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Merge consecutive spans of the same scope."""
    merged: list[dict[str, Json]] = []
    for scope_spans in scope_spans_list:
        if merged and merged[-1]["scope"] == scope_spans["scope"]:
            merged[-1]["spans"] += scope_spans["spans"]
        else:
            merged.append(scope_spans)
    return merged


def _convert_span(
    span: Mapping[str, Json], earliest: Mapping[str, int], path: str, log: ImportLog
) -> tuple[str | None, dict[str, Json]]:
    """Return the service, and the span in its scope."""
    trace_id = parse_hex_id(span["traceId"], 32, f"{path}.traceId")
    events = [
        _convert_annotation(annotation, f"{path}.annotations[{index}]", log)
        for index, annotation in enumerate(expect_list(span.get("annotations"), f"{path}.annotations"))
    ]
    tags = expect_type(span.get("tags") or {}, dict, f"{path}.tags")
    attributes = [make_attribute(key, expect_type(value, str, f"{path}.tags.{key}")) for key, value in tags.items()]
    local = dict(_read_endpoint(span, "localEndpoint", "network.local", path, log))
    service = local.pop("service", None)
    remote = dict(_read_endpoint(span, "remoteEndpoint", "network.peer", path, log))
    if "service" in remote:
        remote["service.peer.name"] = remote.pop("service")
    extra: dict[str, Json] = local | remote
    for name in ("shared", "debug"):
        if span.get(name) is not None:
            extra[f"zipkin.{name}"] = expect_type(span[name], bool, f"{path}.{name}")
    start_ns = parse_microseconds(span.get("timestamp") or 0, f"{path}.timestamp")
    if not start_ns:
        extra["zipkin.timestamp_absent"] = True
        annotation_times = [int(event["timeUnixNano"]) for event in events]
        start_ns = min(annotation_times) if annotation_times else earliest.get(trace_id, 0)
    # Zipkin rounds a duration up to one microsecond; without one, the span has not ended
    duration_ns = parse_microseconds(span.get("duration") or 0, f"{path}.duration")
    # a tag of the same name keeps its name
    attributes += [make_attribute(f"zipkin.{name}" if name in tags else name, value) for name, value in extra.items()]
    kind = span.get("kind")
    if kind is not None and expect_type(kind, str, f"{path}.kind") not in SPAN_KIND_NUMBERS:
        raise_unreadable(f"{path}.kind", f"{kind!r} is not a kind: {', '.join(SPAN_KIND_NUMBERS)}")
    converted = {
        "traceId": trace_id,
        "spanId": parse_hex_id(span.get("id"), 16, f"{path}.id"),
        "name": expect_type(span.get("name") or "", str, f"{path}.name"),
        "kind": 0 if kind is None else SPAN_KIND_NUMBERS[kind],
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + duration_ns if duration_ns else 0),
        "events": events,
    }
    if span.get("parentId"):
        converted["parentSpanId"] = parse_hex_id(span["parentId"], 16, f"{path}.parentId", optional=True)
    scope = pop_scope(attributes)
    code = pop_text(attributes, "otel.status_code", STATUS_CODES)
    # in Zipkin, the presence of the tag means an error; its value describes the error
    error = tags.get("error", "false")
    if error != "false" or code is not None:
        message = error if error not in ("true", "false") else ""
        converted["status"] = {"code": STATUS_CODES[code or "ERROR"], "message": message}
    converted["attributes"] = attributes
    return service, {"scope": scope, "spans": [converted]}


def _convert_annotation(annotation: Json, path: str, log: ImportLog) -> dict[str, Json]:
    log.check_keys(expect_type(annotation, dict, path), ("timestamp", "value"), path)
    return {
        "timeUnixNano": str(parse_microseconds(annotation.get("timestamp"), f"{path}.timestamp")),
        "name": expect_type(annotation.get("value"), str, f"{path}.value"),
    }


def _read_endpoint(
    owner: Mapping[str, Json], key: str, prefix: str, path: str, log: ImportLog
) -> list[tuple[str, Json]]:
    """Return ``service`` and the address attributes of an endpoint."""
    endpoint_path = f"{path}.{key}"
    endpoint = expect_type(owner.get(key) or {}, dict, endpoint_path)
    log.check_keys(endpoint, ENDPOINT_KEYS, endpoint_path)
    attributes: list[tuple[str, Json]] = []
    if endpoint.get("serviceName"):
        attributes.append(("service", expect_type(endpoint["serviceName"], str, f"{endpoint_path}.serviceName")))
    addresses = [
        expect_type(endpoint[name], str, f"{endpoint_path}.{name}") for name in ("ipv4", "ipv6") if endpoint.get(name)
    ]
    if addresses:
        attributes.append((f"{prefix}.address", addresses[0]))
    if len(addresses) > 1:
        attributes.append((f"{prefix}.address_v6", addresses[1]))
    if endpoint.get("port"):
        attributes.append((f"{prefix}.port", expect_type(endpoint["port"], int, f"{endpoint_path}.port")))
    return attributes
