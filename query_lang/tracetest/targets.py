"""Selectors of Tracetest's as selections of spans."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from spanproof.query_lang.tracetest.constructs import malformed, refuse
from spanproof.query_lang.tracetest.selectors import Filter, SpanSelector
from spanproof.query_lang.tracetest.writing import Names, write_attribute
from spanproof.query_lang.writing import write_ns, write_text

# Tracetest tells a span's type by how the name of any of its attributes begins; a proof by the attribute that
# spans of this type must have.
TYPES: Final = {
    "database": ("db.", "db.system.name"),
    "exception": ("exception.", "exception.type"),
    "faas": ("faas.", "faas.trigger"),
    "http": ("http.", "http.request.method"),
    "messaging": ("messaging.", "messaging.system"),
    "rpc": ("rpc.", "rpc.system.name"),
}
OF_SPAN: Final = "tracetest.span."
TYPE: Final = "tracetest.span.type"
FIELDS: Final = {
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
WORDS: Final = {
    "kind": {each: each for each in ("internal", "server", "client", "producer", "consumer")}
    | {"unespecified": "unspecified"},
    "status": {f"STATUS_CODE_{each.upper()}": each for each in ("unset", "ok", "error")},
}


def write_target(selectors: list[SpanSelector], names: Names) -> str:
    """Return the selection of the same spans. Raises Refused."""
    if len(selectors) == 1:
        return _write_span(selectors[0], names)
    conditions = [_join([_write_filter(each, selector) for each in selector.filters]) for selector in selectors]
    if not all(conditions):
        return "span"
    return f"span[{' or '.join(conditions)}]"


def is_of_type(type_: str, filters: tuple[Filter, ...]) -> str:
    """Return the condition that a span is of a type, or nothing where `filters` have said so."""
    if type_ == "general":
        known = [f"exists({write_attribute(attribute)})" for _, attribute in TYPES.values()]
        return f"not ({' or '.join(known)})"
    prefix, attribute = TYPES[type_]
    if any(each.name.startswith(prefix) and each.value for each in filters):
        return ""
    return f"exists({write_attribute(attribute)})"


def _write_span(selector: SpanSelector, names: Names) -> str:
    """Return ``span service "operation"[condition]``."""
    rest = list(selector.filters)
    written = "span"
    service = _take(rest, "service.name", names.take_service)
    if service is not None:
        written += f" {service}"
    operation = _take(rest, "name", lambda text: "*" not in text)
    if operation is not None:
        written += f" {write_text(operation)}"
    condition = " and ".join(term for each in rest if (term := _write_filter(each, selector)))
    return f"{written}[{condition}]" if condition else written


def _take(filters: list[Filter], name: str, fits: Callable[[str], bool]) -> str | None:
    """Take the filter ``name = value`` out, if its value fits; return the value."""
    for each in filters:
        if each.name == name and each.operator == "=" and each.value and fits(each.value):
            filters.remove(each)
            return each.value
    return None


def _join(terms: list[str]) -> str:
    said = [term for term in terms if term]
    return f"({' and '.join(said)})" if len(said) > 1 else "".join(said)


def _write_filter(each: Filter, selector: SpanSelector) -> str:
    """Return the condition that a filter sets, or nothing where it holds anyway."""
    name = FIELDS.get(each.name)
    if each.name == TYPE:
        if each.operator != "=" or each.value not in (*TYPES, "general"):
            raise refuse("tracetest.span.type compared", each.at, f"{TYPE} {each.operator} {each.value}")
        return is_of_type(each.value, selector.filters)
    if name is None and each.name.startswith((OF_SPAN, "tracetest.response.", "tracetest.selected_spans.")):
        raise malformed(f"no span has `{each.name}`", each.at)
    if each.operator == "contains":
        if name in ("kind", "status", "duration"):
            raise malformed(f"`{each.name}` is compared by `=`", each.at)
        return f"{name or write_attribute(each.name)} contains {write_text(each.value)}" if each.value else ""
    if name in WORDS:
        if each.value not in WORDS[name]:
            raise malformed(f"`{each.name}` is never `{each.value}`", each.at)
        return f"{name} == {WORDS[name][each.value]}"
    if name == "duration":
        if not re.fullmatch(r"\d+", each.value):
            raise malformed("a duration is a number of nanoseconds here", each.at)
        return f"duration == {write_ns(int(each.value))}"
    written = name or write_attribute(each.name)
    if not each.value:  # what is not there is an empty text
        return f'({written} == null or {written} == "")'
    return f"{written} == {each.value if each.is_number and name is None else write_text(each.value)}"
