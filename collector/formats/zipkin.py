"""Zipkin JSON v2 → OTLP/JSON. The format: https://zipkin.io/zipkin-api/zipkin2-api.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spanproof.collector.formats.json_documents import (
    STATUS_CODES,
    Json,
    expect_list,
    expect_type,
    make_attribute,
    parse_hex_id,
    parse_microseconds,
    pop_scope,
    pop_text,
    raise_unreadable,
    reject_unknown_keys,
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
ENDPOINT_KEYS: Final = frozenset(("serviceName", "ipv4", "ipv6", "port"))


def convert_zipkin(document: Json) -> dict[str, Json]:
    """Return the spans of a Zipkin document, a list of them or of traces, as OTLP/JSON. Raises UnreadableFile.

    Zipkin may leave out when a span began, as its other half says it. It then gets its first annotation's time, else
    the earliest of its trace, and ``zipkin.timestamp_absent``; likewise ``zipkin.duration_absent``.
    """
    spans = _list_spans(document)
    earliest: dict[str, int] = {}
    for path, span in spans:
        reject_unknown_keys(expect_type(span, dict, path), SPAN_KEYS, path)
        trace = parse_hex_id(span.get("traceId"), 32, f"{path}.traceId")
        if span.get("timestamp"):
            start_ns = parse_microseconds(span["timestamp"], f"{path}.timestamp")
            earliest[trace] = min(start_ns, earliest.get(trace, start_ns))
    services: dict[str | None, list[dict[str, Json]]] = {}
    for path, span in spans:
        service, scope_spans = _convert_span(span, earliest, path)
        services.setdefault(service, []).append(scope_spans)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [] if service is None else [make_attribute("service.name", service)]},
                "scopeSpans": _merge_scopes(found),
            }
            for service, found in services.items()
        ]
    }


def _list_spans(document: Json) -> list[tuple[str, Json]]:
    found: list[tuple[str, Json]] = []
    for index, item in enumerate(expect_type(document, list, "")):
        if isinstance(item, list):
            found += [(f"[{index}][{place}]", span) for place, span in enumerate(item)]
        else:
            found.append((f"[{index}]", item))
    return found


def _merge_scopes(found: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Put spans of one scope that follow each other together."""
    joined: list[dict[str, Json]] = []
    for each in found:
        if joined and joined[-1]["scope"] == each["scope"]:
            joined[-1]["spans"] += each["spans"]
        else:
            joined.append(each)
    return joined


def _convert_span(
    span: Mapping[str, Json], earliest: Mapping[str, int], path: str
) -> tuple[str | None, dict[str, Json]]:
    """Return the service, and the span within its scope."""
    trace_id = parse_hex_id(span["traceId"], 32, f"{path}.traceId")
    events = [
        _convert_annotation(annotation, f"{path}.annotations[{index}]")
        for index, annotation in enumerate(expect_list(span.get("annotations"), f"{path}.annotations"))
    ]
    tags = expect_type(span.get("tags") or {}, dict, f"{path}.tags")
    attributes = [make_attribute(key, expect_type(value, str, f"{path}.tags.{key}")) for key, value in tags.items()]
    local = dict(_read_endpoint(span, "localEndpoint", "network.local", path))
    service = local.pop("service", None)
    remote = dict(_read_endpoint(span, "remoteEndpoint", "network.peer", path))
    if "service" in remote:
        remote["service.peer.name"] = remote.pop("service")
    told: dict[str, Json] = local | remote
    for name in ("shared", "debug"):
        if span.get(name) is not None:
            told[f"zipkin.{name}"] = expect_type(span[name], bool, f"{path}.{name}")
    start_ns = parse_microseconds(span.get("timestamp") or 0, f"{path}.timestamp")
    if not start_ns:
        told["zipkin.timestamp_absent"] = True
        noted = [int(event["timeUnixNano"]) for event in events]
        start_ns = min(noted) if noted else earliest.get(trace_id, 0)
    duration_ns = parse_microseconds(span.get("duration") or 0, f"{path}.duration")
    if not duration_ns:
        told["zipkin.duration_absent"] = True
    # a tag of the same name keeps it, and neither is lost
    attributes += [make_attribute(f"zipkin.{name}" if name in tags else name, value) for name, value in told.items()]
    kind = span.get("kind")
    if kind is not None and expect_type(kind, str, f"{path}.kind") not in SPAN_KIND_NUMBERS:
        raise_unreadable(f"{path}.kind", f"{kind!r} is not a kind: {', '.join(SPAN_KIND_NUMBERS)}")
    converted = {
        "traceId": trace_id,
        "spanId": parse_hex_id(span.get("id"), 16, f"{path}.id"),
        "name": expect_type(span.get("name") or "", str, f"{path}.name"),
        "kind": 0 if kind is None else SPAN_KIND_NUMBERS[kind],
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + duration_ns),
        "events": events,
    }
    if span.get("parentId"):
        converted["parentSpanId"] = parse_hex_id(span["parentId"], 16, f"{path}.parentId", optional=True)
    scope = pop_scope(attributes)
    code = pop_text(attributes, "otel.status_code", STATUS_CODES)
    # Zipkin says an error by the tag being there; its value describes it
    error = tags.get("error", "false")
    if error != "false" or code is not None:
        message = error if error not in ("true", "false") else ""
        converted["status"] = {"code": STATUS_CODES[code or "ERROR"], "message": message}
    converted["attributes"] = attributes
    return service, {"scope": scope, "spans": [converted]}


def _convert_annotation(annotation: Json, path: str) -> dict[str, Json]:
    reject_unknown_keys(expect_type(annotation, dict, path), ("timestamp", "value"), path)
    return {
        "timeUnixNano": str(parse_microseconds(annotation.get("timestamp"), f"{path}.timestamp")),
        "name": expect_type(annotation.get("value"), str, f"{path}.value"),
    }


def _read_endpoint(owner: Mapping[str, Json], key: str, prefix: str, path: str) -> list[tuple[str, Json]]:
    """Return who is at one end: ``service``, and attributes of its address."""
    where = f"{path}.{key}"
    endpoint = expect_type(owner.get(key) or {}, dict, where)
    reject_unknown_keys(endpoint, ENDPOINT_KEYS, where)
    found: list[tuple[str, Json]] = []
    if endpoint.get("serviceName"):
        found.append(("service", expect_type(endpoint["serviceName"], str, f"{where}.serviceName")))
    addresses = [expect_type(endpoint[name], str, f"{where}.{name}") for name in ("ipv4", "ipv6") if endpoint.get(name)]
    if addresses:
        found.append((f"{prefix}.address", addresses[0]))
    if len(addresses) > 1:
        found.append((f"{prefix}.address_v6", addresses[1]))
    if endpoint.get("port"):
        found.append((f"{prefix}.port", expect_type(endpoint["port"], int, f"{where}.port")))
    return found
