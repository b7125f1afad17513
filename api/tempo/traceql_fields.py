"""The fields of a span in TraceQL, as SQL."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from spanproof.query_lang.sql.conditions import SPAN_ID_SQL, TRACE_ID_SQL, SqlValue, compile_operator
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.syntax.vocabulary import ValueKind

_ROOT_CONDITION = (
    "s.trace_id IN (SELECT t.trace_id FROM topology t JOIN spans r USING (trace_id, span_key)"
    " WHERE t.depth = 0 AND NOT t.orphan AND {})"
)
_TRACE_CONDITION = "s.trace_id IN (SELECT trace_id FROM spans GROUP BY trace_id HAVING {})"


class TraceqlIntrinsic(Struct, frozen=True):
    """A field that is not an attribute: the SQL of its value, its kind, and the template of a condition on it."""

    sql: str
    kind: ValueKind
    condition_template: str = "{}"


_NAME = TraceqlIntrinsic("s.name", "text")
_STATUS = TraceqlIntrinsic("s.status", "status")
_STATUS_MESSAGE = TraceqlIntrinsic("s.status_message", "text")
_KIND = TraceqlIntrinsic("s.kind", "kind")
_DURATION = TraceqlIntrinsic("(nullif(s.end_ns, 0) - s.start_ns)", "duration")
_TRACE_DURATION = TraceqlIntrinsic(
    "(max(coalesce(nullif(end_ns, 0), start_ns)) - min(start_ns))", "duration", _TRACE_CONDITION
)
_ROOT_NAME = TraceqlIntrinsic("r.name", "text", _ROOT_CONDITION)
_ROOT_SERVICE = TraceqlIntrinsic("r.service", "text", _ROOT_CONDITION)
INTRINSICS: Final = {
    "name": _NAME,
    "status": _STATUS,
    "statusMessage": _STATUS_MESSAGE,
    "kind": _KIND,
    "duration": _DURATION,
    "traceDuration": _TRACE_DURATION,
    "rootName": _ROOT_NAME,
    "rootServiceName": _ROOT_SERVICE,
    "span:name": _NAME,
    "span:status": _STATUS,
    "span:statusMessage": _STATUS_MESSAGE,
    "span:kind": _KIND,
    "span:duration": _DURATION,
    "span:id": TraceqlIntrinsic(SPAN_ID_SQL.format("s.span_id"), "text"),
    "span:parentID": TraceqlIntrinsic(SPAN_ID_SQL.format("s.parent_id"), "text"),
    "trace:id": TraceqlIntrinsic(TRACE_ID_SQL.format("s.trace_id"), "text"),
    "trace:duration": _TRACE_DURATION,
    "trace:rootName": _ROOT_NAME,
    "trace:rootService": _ROOT_SERVICE,
}


class TraceqlAttribute(Struct, frozen=True):
    """An attribute of the ``span`` or its ``resource``; without a scope, of the first of these that has it."""

    scope: str
    name: str


def read_field(text: str) -> TraceqlIntrinsic | TraceqlAttribute | None:
    """Return the field of a name, or None if there is no such field."""
    if text in INTRINSICS:
        return INTRINSICS[text]
    scope, dot, name = text.partition(".")
    return (
        TraceqlAttribute(scope, name)
        if dot and name and "\0" not in name and scope in ("", "span", "resource")
        else None
    )


def compile_attribute_comparison(attribute: TraceqlAttribute, operator: str, right: SqlValue) -> str:
    """Return the condition that compares an attribute of a row `s`, or of its resource, with `right`."""
    span_attribute = SQL.attribute("s.attributes", attribute.name)
    on_span = compile_operator(operator, SqlValue(span_attribute, "any"), right)
    if attribute.scope == "span":
        return on_span
    resource_attribute = SqlValue(SQL.attribute("attributes", attribute.name), "any")
    matches = compile_operator(operator, resource_attribute, right)
    on_resource = f"s.resource_key IN (SELECT resource_key FROM resources WHERE {matches})"  # noqa: S608 (quoted)
    if attribute.scope:
        return on_resource
    return f"(CASE WHEN {span_attribute} IS NULL THEN {on_resource} ELSE {on_span} END)"
