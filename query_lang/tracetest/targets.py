"""Conversion of Tracetest's selectors to span selections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from spanproof.query_lang.syntax.printer import format_duration_ns, format_string
from spanproof.query_lang.tracetest.printer import ProofNames, write_attribute
from spanproof.query_lang.tracetest.selectors import AttributeFilter, SpanSelector
from spanproof.query_lang.tracetest.unsupported import make_malformed_error, make_no_equivalent_error

# Type of a span: Tracetest checks the prefix of its attribute names; a proof checks the attribute that spans of this
# type must have.
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
    """Return the equivalent span selection. Raises DiagnosticError."""
    if len(selectors) == 1:
        return _write_span(selectors[0], names)
    picked = next((selector for selector in selectors if selector.pick), None)
    if picked is not None:
        raise make_no_equivalent_error("position and other selectors", picked.at)
    conditions = [_join_conditions(_write_filters(selector)) for selector in selectors]
    if not all(conditions):
        return "span"
    return f"span[{' or '.join(conditions)}]"


def write_type_condition(type_: str, filters: tuple[AttributeFilter, ...]) -> str:
    """Return the condition that a span is of a type, or an empty text if `filters` imply it."""
    if type_ == "general":
        known = [f"exists({write_attribute(attribute)})" for _, attribute in SPAN_TYPES.values()]
        return f"not ({' or '.join(known)})"
    prefix, attribute = SPAN_TYPES[type_]
    if any(each.name.startswith(prefix) and each.value for each in filters):
        return ""
    return f"exists({write_attribute(attribute)})"


def _write_span(selector: SpanSelector, names: ProofNames) -> str:
    """Return ``span service "operation"[condition]``, and what is picked from it."""
    filters = list(selector.filters)
    selection = "span"
    service = _pop_filter(filters, "service.name", names.reserve_service_name)
    if service is not None:
        selection += f" {service}"
    operation = _pop_filter(filters, "name", lambda text: "*" not in text)
    if operation is not None:
        selection += f" {format_string(operation)}"
    condition = " and ".join(_write_filters(selector, filters))
    selection = f"{selection}[{condition}]" if condition else selection
    return f"{selector.pick}({selection})" if selector.pick else selection


def _write_filters(selector: SpanSelector, filters: Iterable[AttributeFilter] | None = None) -> list[str]:
    """Return the conditions of some filters of a selector, or of all, and those of the selectors around it."""
    filters = selector.filters if filters is None else filters
    conditions = [term for filter_ in filters if (term := _write_filter(filter_, selector))]
    outer = selector.outer
    if outer is not None and not outer.matches_trigger_span:  # all spans are below that of the trigger
        around = " and ".join(_write_filters(outer))
        is_alone = not conditions and filters is not selector.filters
        either = f"{_join_conditions(_write_filters(outer))} or ancestor[{around}]"
        conditions += [either if is_alone else f"({either})"] if around else []
    return conditions


def _pop_filter(filters: list[AttributeFilter], name: str, is_usable: Callable[[str], bool]) -> str | None:
    """Remove the filter ``name = value`` if its value is usable. Return the value, or None."""
    for filter_ in filters:
        if filter_.name == name and filter_.operator == "=" and filter_.value and is_usable(filter_.value):
            filters.remove(filter_)
            return filter_.value
    return None


def _join_conditions(terms: list[str]) -> str:
    conditions = [term for term in terms if term]
    return f"({' and '.join(conditions)})" if len(conditions) > 1 else "".join(conditions)


def _write_filter(filter_: AttributeFilter, selector: SpanSelector) -> str:
    """Return the condition of a filter, or an empty text if it always holds."""
    name = FIELD_BY_ATTRIBUTE.get(filter_.name)
    if filter_.name == TYPE_ATTRIBUTE:
        if filter_.operator != "=" or filter_.value not in (*SPAN_TYPES, "general"):
            raise make_no_equivalent_error(
                "tracetest.span.type compared", filter_.at, f"{TYPE_ATTRIBUTE} {filter_.operator} {filter_.value}"
            )
        return write_type_condition(filter_.value, selector.filters)
    if name is None and filter_.name.startswith((SPAN_PREFIX, "tracetest.response.", "tracetest.selected_spans.")):
        raise make_malformed_error(f"no span has `{filter_.name}`", filter_.at)
    if filter_.operator == "contains":
        if name in ("kind", "status", "duration"):
            raise make_malformed_error(f"`{filter_.name}` is compared by `=`", filter_.at)
        return (
            f"{name or write_attribute(filter_.name)} contains {format_string(filter_.value)}" if filter_.value else ""
        )
    if name in ENUM_WORDS:
        if filter_.value not in ENUM_WORDS[name]:
            raise make_malformed_error(f"`{filter_.name}` is never `{filter_.value}`", filter_.at)
        return f"{name} == {ENUM_WORDS[name][filter_.value]}"
    if name == "duration":
        if not re.fullmatch(r"\d+", filter_.value):
            raise make_malformed_error("a duration is a number of nanoseconds here", filter_.at)
        return f"duration == {format_duration_ns(int(filter_.value))}"
    attribute = name or write_attribute(filter_.name)
    if not filter_.value:  # a missing attribute equals an empty text
        return f'({attribute} == null or {attribute} == "")'
    return f"{attribute} == {filter_.value if filter_.is_number and name is None else format_string(filter_.value)}"
