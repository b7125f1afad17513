"""Searches as Tempo's API has them: by TraceQL or by tags, answered with the spans that matched."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from spanproof.api.http.trace_search import FoundTrace, TraceSearch, find_traces, read_sql
from spanproof.api.tempo.documents import TempoAttribute, TempoSearch, TempoSpan, TempoSpanSet, TempoTrace
from spanproof.api.tempo.traceql import SpanFilter
from spanproof.api.tempo.traceql_fields import TraceqlAttribute, compile_attribute_comparison
from spanproof.collector.otlp.encoder import encode_value
from spanproof.collector.otlp.json_mapping import render_message
from spanproof.collector.otlp.semantic_conventions import STATUS_CODES
from spanproof.query_lang.compile.conditions import SqlParameters, SqlValue, compile_operator

if TYPE_CHECKING:
    import duckdb

_MISSING_ROOT_NAME = "<root span not yet received>"  # what Tempo says of an orphan, too
_NS_PER_MS = 1_000_000
_TAG_PATTERN = re.compile(r'\s*([^\s="\0]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))(?=\s|$)')


def compile_tags(text: str, parameters: SqlParameters) -> SpanFilter:
    """Read tags as logfmt writes them (``name="GET /" region=eu``); each value is part of one. Raises ValueError."""
    conditions, attributes = [], []
    at = 0
    while text[at:].strip():
        found = _TAG_PATTERN.match(text, at)
        if found is None:
            raise ValueError(f'column {at + 1}: tags are written key=value or key="a value", with spaces in between')
        at = found.end()
        key, quoted, plain = found.groups()
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if key == "status.code":
            if value not in STATUS_CODES:
                raise ValueError(f"status.code: `{value}` is none of {', '.join(STATUS_CODES)}")
            conditions.append(f"s.status = {parameters.add(STATUS_CODES[value])}")
            continue
        part = SqlValue(parameters.add(f"(?i){re.escape(value)}"), "text")
        if key == "name":
            conditions.append(compile_operator("=~", SqlValue("s.name", "text"), part))
        else:
            attributes.append(TraceqlAttribute("", key))
            conditions.append(compile_attribute_comparison(attributes[-1], "=~", part))
    return SpanFilter(" AND ".join(["true", *conditions]), tuple(attributes))


def search_traces(
    connection: duckdb.DuckDBPyConnection, search: TraceSearch, matching: SpanFilter, most_spans: int
) -> TempoSearch:
    """Search, and show of each trace at most so many of the spans that matched."""
    connection.begin()
    found, _ = find_traces(connection, search)
    rows = connection.execute(
        read_sql("spanproof.api.tempo", "matches.sql", matching=matching.sql),
        search.parameters.values | {"trace_ids": [trace.trace_id for trace in found], "spans": most_spans},
    ).fetchall()
    matches: dict[UUID, list[_Match]] = {}
    for row in rows:
        match = _Match(*row)
        matches.setdefault(match.trace_id, []).append(match)
    return TempoSearch(traces=[_make_trace(trace, matches.get(trace.trace_id, []), matching) for trace in found])


@dataclass(frozen=True, slots=True)
class _Match:
    trace_id: UUID
    span_id: int
    name: str
    start_ns: int
    duration_ns: int
    attributes: dict[str, list[str]]
    attribute_kinds: str
    resource: dict[str, list[str]]
    resource_kinds: str
    matched: int

    def find_attribute(self, attribute: TraceqlAttribute) -> tuple[str, str] | None:
        """Find the kind and the text of an attribute."""
        own, shared = (self.attributes, self.attribute_kinds), (self.resource, self.resource_kinds)
        for lists, kinds in {"span": (own,), "resource": (shared,), "": (own, shared)}[attribute.scope]:
            if attribute.name in lists["keys"]:
                place = lists["keys"].index(attribute.name)
                return kinds[place], lists["texts"][place]
        return None


def _make_trace(trace: FoundTrace, matches: list[_Match], matching: SpanFilter) -> TempoTrace:
    orphan = trace.root["orphan"]
    spans = [
        TempoSpan(
            span_id=f"{match.span_id:016x}", name=match.name, start_time_unix_nano=str(match.start_ns),
            duration_nanos=str(match.duration_ns), attributes=_make_attributes(match, matching.attributes),
        )
        for match in matches
    ]  # fmt: skip
    return TempoTrace(
        trace_id=trace.trace_id.hex,
        root_service_name=_MISSING_ROOT_NAME if orphan else trace.root["service"],
        root_trace_name="" if orphan else trace.root["name"],
        start_time_unix_nano=str(trace.start_ns),
        duration_ms=min(trace.duration_ns // _NS_PER_MS, 2**32 - 1),
        span_sets=[TempoSpanSet(spans=spans, matched=matches[0].matched)] if matches else [],
    )


def _make_attributes(match: _Match, wanted: tuple[TraceqlAttribute, ...]) -> list[TempoAttribute]:
    told = []
    for attribute in wanted:
        found = match.find_attribute(attribute)
        if found is not None:
            told.append(TempoAttribute(key=attribute.name, value=_make_value(*found)))
    return told


def _make_value(kind: str, text: str) -> dict[str, Any]:
    if kind == "d" and not math.isfinite(float(text)):
        return {"stringValue": text}  # Grafana reads numbers there
    return render_message(encode_value(kind, text))
