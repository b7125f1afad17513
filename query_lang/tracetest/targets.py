"""Selectors of Tracetest's as selections of spans."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from spanproof.query_lang.syntax.printer import format_duration_ns, format_string
from spanproof.query_lang.tracetest.printer import ProofNames, write_attribute
from spanproof.query_lang.tracetest.selectors import AttributeFilter, SpanSelector
from spanproof.query_lang.tracetest.unsupported import make_malformed_error, make_no_equivalent_error

# Tracetest tells a span's type by how the name of any of its attributes begins; a proof by the attribute that
# spans of this type must have.
SPAN_TYPES: Final = {
    "database": ("db.", "db.system.name"),
    "exception": ("exception.", "exception.type"),
    "faas": ("faas.", "faas.trigger"),
    "http": ("http.", "http.request.method"),
    "messaging": ("messaging.", "messaging.system"),
    "rpc": ("rpc.", "rpc.system.name"),
}
SPAN_PREFIX: Final = "tracetest.span."
TYPE_ATTRIBUTE: Final = "tracetest.span.type"
FIELD_BY_ATTRIBUTE: Final = {
    "kind": "kind",
    "name": "name",
    "service.name": "service",
    "tracetest.span.duration": "duration",
    "tracetest.span.kind": "kind",
    "tracetest.span.name": "name",
    "tracetest.span.parent_id": "parent_id",
    "tracetest.span.status_code": "status",
    "tracetest.span.status_description": "status_message",
}
ENUM_WORDS: Final = {
    "kind": {each: each for each in ("internal", "server", "client", "producer", "consumer")}
    | {"unespecified": "unspecified"},
    "status": {f"STATUS_CODE_{each.upper()}": each for each in ("unset", "ok", "error")},
}


def write_selection(selectors: list[SpanSelector], names: ProofNames) -> str:
    """Return the selection of the same spans. Raises Refused."""
    if len(selectors) == 1:
        return _write_span(selectors[0], names)
    conditions = [
        _join_conditions([_write_filter(each, selector) for each in selector.filters]) for selector in selectors
    ]
    if not all(conditions):
        return "span"
    return f"span[{' or '.join(conditions)}]"


def write_type_condition(type_: str, filters: tuple[AttributeFilter, ...]) -> str:
    """Return the condition that a span is of a type, or nothing where `filters` have said so."""
    if type_ == "general":
        known = [f"exists({write_attribute(attribute)})" for _, attribute in SPAN_TYPES.values()]
        return f"not ({' or '.join(known)})"
    prefix, attribute = SPAN_TYPES[type_]
    if any(each.name.startswith(prefix) and each.value for each in filters):
        return ""
    return f"exists({write_attribute(attribute)})"


def _write_span(selector: SpanSelector, names: ProofNames) -> str:
    """Return ``span service "operation"[condition]``."""
    rest = list(selector.filters)
    written = "span"
    service = _pop_filter(rest, "service.name", names.reserve_service_name)
    if service is not None:
        written += f" {service}"
    operation = _pop_filter(rest, "name", lambda text: "*" not in text)
    if operation is not None:
        written += f" {format_string(operation)}"
    condition = " and ".join(term for each in rest if (term := _write_filter(each, selector)))
    return f"{written}[{condition}]" if condition else written


def _pop_filter(filters: list[AttributeFilter], name: str, is_usable: Callable[[str], bool]) -> str | None:
    """Take the filter ``name = value`` out, if its value fits; return the value."""
    for each in filters:
        if each.name == name and each.operator == "=" and each.value and is_usable(each.value):
            filters.remove(each)
            return each.value
    return None


def _join_conditions(terms: list[str]) -> str:
    said = [term for term in terms if term]
    return f"({' and '.join(said)})" if len(said) > 1 else "".join(said)


def _write_filter(each: AttributeFilter, selector: SpanSelector) -> str:
    """Return the condition that a filter sets, or nothing where it holds anyway."""
    name = FIELD_BY_ATTRIBUTE.get(each.name)
    if each.name == TYPE_ATTRIBUTE:
        if each.operator != "=" or each.value not in (*SPAN_TYPES, "general"):
            raise make_no_equivalent_error(
                "tracetest.span.type compared", each.at, f"{TYPE_ATTRIBUTE} {each.operator} {each.value}"
            )
        return write_type_condition(each.value, selector.filters)
    if name is None and each.name.startswith((SPAN_PREFIX, "tracetest.response.", "tracetest.selected_spans.")):
        raise make_malformed_error(f"no span has `{each.name}`", each.at)
    if each.operator == "contains":
        if name in ("kind", "status", "duration"):
            raise make_malformed_error(f"`{each.name}` is compared by `=`", each.at)
        return f"{name or write_attribute(each.name)} contains {format_string(each.value)}" if each.value else ""
    if name in ENUM_WORDS:
        if each.value not in ENUM_WORDS[name]:
            raise make_malformed_error(f"`{each.name}` is never `{each.value}`", each.at)
        return f"{name} == {ENUM_WORDS[name][each.value]}"
    if name == "duration":
        if not re.fullmatch(r"\d+", each.value):
            raise make_malformed_error("a duration is a number of nanoseconds here", each.at)
        return f"duration == {format_duration_ns(int(each.value))}"
    written = name or write_attribute(each.name)
    if not each.value:  # what is not there is an empty text
        return f'({written} == null or {written} == "")'
    return f"{written} == {each.value if each.is_number and name is None else format_string(each.value)}"
