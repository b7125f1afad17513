"""Searches of Tempo's API: by TraceQL or by tags, answered with the matching spans."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import Struct

from spanproof.api.http.trace_search import FoundTrace, TraceSearch, find_traces, read_sql
from spanproof.api.tempo.documents import TempoAttribute, TempoSearch, TempoSpan, TempoSpanSet, TempoTrace
from spanproof.api.tempo.traceql import SpanFilter
from spanproof.api.tempo.traceql_fields import TraceqlAttribute, compile_attribute_comparison
from spanproof.collector.otlp.encoder import encode_value
from spanproof.collector.otlp.json_mapping import render_message
from spanproof.collector.otlp.semantic_conventions import STATUS_CODES
from spanproof.query_lang.sql.conditions import SqlValue, compile_operator
from spanproof.query_lang.sql.row_aliases import SqlParameters

if TYPE_CHECKING:
    import duckdb

_MISSING_ROOT_NAME = "<root span not yet received>"  # Tempo's own text for an orphan
_NS_PER_MS = 1_000_000
_TAG_PATTERN = re.compile(r'\s*([^\s="\0]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))(?=\s|$)')


def compile_tags(text: str, parameters: SqlParameters) -> SpanFilter:
    """Compile tags in logfmt (``name="GET /" region=eu``); a value matches as a substring. Raises ValueError."""
    conditions, attributes = [], []
    at = 0
    while text[at:].strip():
        match = _TAG_PATTERN.match(text, at)
        if match is None:
            raise ValueError(f'column {at + 1}: tags are written key=value or key="a value", separated by spaces')
        at = match.end()
        key, quoted, plain = match.groups()
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if key == "status.code":
            if value not in STATUS_CODES:
                raise ValueError(f"status.code: `{value}` is not one of {', '.join(STATUS_CODES)}")
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
    connection: duckdb.DuckDBPyConnection, search: TraceSearch, span_filter: SpanFilter, most_spans: int
) -> TempoSearch:
    """Search for traces; return up to `most_spans` matching spans of each."""
    connection.begin()
    traces, _ = find_traces(connection, search)
    rows = connection.execute(
        read_sql("spanproof.api.tempo", "matches.sql", span_condition=span_filter.sql),
        search.parameters.values | {"trace_ids": [trace.trace_id for trace in traces], "spans": most_spans},
    ).fetchall()
    matches: dict[UUID, list[_Match]] = {}
    for row in rows:
        match = _Match(*row)
        matches.setdefault(match.trace_id, []).append(match)
    return TempoSearch(traces=[_make_trace(trace, matches.get(trace.trace_id, []), span_filter) for trace in traces])


class _Match(Struct, frozen=True):
    trace_id: UUID
    span_id: int
    name: str
    start_ns: int
    duration_ns: int
    attributes: dict[str, list[Any]]
    attribute_kinds: str
    resource: dict[str, list[Any]]
    resource_kinds: str
    matched: int

    def find_attribute(self, attribute: TraceqlAttribute) -> tuple[str, str | None] | None:
        """Return the kind and the text of an attribute, or None if it is absent."""
        span, resource = (self.attributes, self.attribute_kinds), (self.resource, self.resource_kinds)
        for lists, kinds in {"span": (span,), "resource": (resource,), "": (span, resource)}[attribute.scope]:
            if attribute.name in lists["keys"]:
                index = lists["keys"].index(attribute.name)
                return kinds[index], lists["texts"][index]
        return None


def _make_trace(trace: FoundTrace, matches: list[_Match], span_filter: SpanFilter) -> TempoTrace:
    orphan = trace.root["orphan"]
    spans = [
        TempoSpan(
            span_id=f"{match.span_id:016x}", name=match.name, start_time_unix_nano=str(match.start_ns),
            duration_nanos=str(match.duration_ns), attributes=_make_attributes(match, span_filter.attributes),
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


def _make_attributes(match: _Match, attributes: tuple[TraceqlAttribute, ...]) -> list[TempoAttribute]:
    documents = []
    for attribute in attributes:
        kind_and_text = match.find_attribute(attribute)
        if kind_and_text is not None:
            documents.append(TempoAttribute(key=attribute.name, value=_make_value(*kind_and_text)))
    return documents


def _make_value(kind: str, text: str | None) -> dict[str, Any]:
    if kind == "d" and (text is None or not math.isfinite(float(text))):
        return {"stringValue": text or "nan"}  # Grafana accepts only finite numbers as doubleValue
    return render_message(encode_value(kind, text))
