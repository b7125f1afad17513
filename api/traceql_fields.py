"""What TraceQL calls the fields of a span, as SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spanproof.collector.semconv import read_attribute
from spanproof.query_lang.conditions import HEX_ID, TRACE_ID, Value, comparison
from spanproof.query_lang.vocabulary import Kind

_ROOT = (
    "s.trace_id IN (SELECT t.trace_id FROM tree t JOIN spans r USING (trace_id, span_key)"
    " WHERE t.depth = 0 AND NOT t.orphan AND {})"
)
_WHOLE = "s.trace_id IN (SELECT trace_id FROM spans GROUP BY trace_id HAVING {})"


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """A field that is no attribute: the SQL of its value, its kind, and what a condition on it stands in."""

    sql: str
    kind: Kind
    within: str = "{}"


_NAME = Intrinsic("s.name", "text")
_STATUS = Intrinsic("s.status", "status")
_STATUS_MESSAGE = Intrinsic("s.status_message", "text")
_KIND = Intrinsic("s.kind", "kind")
_DURATION = Intrinsic("(s.end_ns - s.start_ns)", "duration")
_TRACE_DURATION = Intrinsic("(max(end_ns) - min(start_ns))", "duration", _WHOLE)
_ROOT_NAME = Intrinsic("r.name", "text", _ROOT)
_ROOT_SERVICE = Intrinsic("r.service", "text", _ROOT)
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
    "span:id": Intrinsic(HEX_ID.format("s.span_id"), "text"),
    "span:parentID": Intrinsic(HEX_ID.format("s.parent_id"), "text"),
    "trace:id": Intrinsic(TRACE_ID.format("s.trace_id"), "text"),
    "trace:duration": _TRACE_DURATION,
    "trace:rootName": _ROOT_NAME,
    "trace:rootService": _ROOT_SERVICE,
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of the ``span``, of its ``resource``, or, without a scope, of the first of these that has it."""

    scope: str
    name: str


def read_field(text: str) -> Intrinsic | Attribute | None:
    """Read the name of a field, or return None if it is none."""
    if text in INTRINSICS:
        return INTRINSICS[text]
    scope, dot, name = text.partition(".")
    return Attribute(scope, name) if dot and name and "\0" not in name and scope in ("", "span", "resource") else None


def compare_attribute(attribute: Attribute, operator: str, right: Value) -> str:
    """Return the condition that an attribute of a row `s`, or of its resource, is as `right` says."""
    own = read_attribute("s.attributes", attribute.name)
    of_span = comparison(operator, Value(own, "any"), right)
    if attribute.scope == "span":
        return of_span
    shared = comparison(operator, Value(read_attribute("attributes", attribute.name), "any"), right)
    of_resource = f"s.resource_key IN (SELECT resource_key FROM resources WHERE {shared})"  # noqa: S608 (quoted)
    return of_resource if attribute.scope else f"(CASE WHEN {own} IS NULL THEN {of_resource} ELSE {of_span} END)"
