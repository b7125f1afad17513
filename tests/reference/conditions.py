"""Conditions on spans, calls, events and links."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Final, TypeAlias

from msgspec import Struct

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS, STATUS_CODES
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import (
    CALL_FIELDS,
    EVENT_FIELDS,
    LINK_FIELDS,
    RELATIVES,
    SPAN_FIELDS,
    UNSTABLE_FIELDS,
)
from spanproof.tests.reference.calls import Calls, Logical, Try
from spanproof.tests.reference.json_parts import read_part
from spanproof.tests.reference.spans import Event, Forest, Link, Span, Value, as_number, as_text, read

KIND_WORDS: Final = {number: word for word, number in SPAN_KINDS.items()}
STATUS_WORDS: Final = {number: word for word, number in STATUS_CODES.items()}
NUMBERS: Final = ("number", "duration", "fraction", "points", "rate", "instant")
ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


class NotCovered(Exception):
    """The specification does not define this, or the reference does not implement it."""


class TypedValue(Struct, frozen=True):
    """A value with its kind: ``number``, ``text``, ``boolean``, or ``any`` for attributes."""

    kind: str
    value: Value | Fraction


Row: TypeAlias = "SpanRow | CallRow | EventRow | LinkRow"


class SpanRow(Struct, frozen=True):
    """The fields of a span."""

    span: Span
    forest: Forest

    fields = SPAN_FIELDS

    @property
    def trace_id(self) -> str:
        return self.span.trace_id

    def field(self, name: str) -> Value | None:
        span, forest = self.span, self.forest
        return {
            "service": lambda: span.service,
            "name": lambda: span.name,
            "kind": lambda: KIND_WORDS[span.kind],
            "status": lambda: STATUS_WORDS[span.status],
            "status_message": lambda: None,
            "duration": lambda: span.duration_ns,
            "self_time": lambda: forest.self_time_ns(span),
            "start": lambda: span.start_ns,
            "end": lambda: span.end_ns,
            "trace_id": lambda: span.trace_id,
            "span_id": lambda: span.span_id,
            "parent_id": lambda: span.parent_id,
            "depth": lambda: forest.depth(span),
            "root": lambda: forest.is_root(span),
            "error": lambda: forest.error(span),
        }[name]()

    def attribute(self, name: str) -> Value | None:
        return read(self.span.attributes, name)

    def resource(self, name: str) -> Value | None:
        return read({"service.name": self.span.service, **self.span.resource}, name)

    def events(self) -> list[EventRow]:
        return [EventRow(event) for event in self.span.events]

    def links(self) -> list[LinkRow]:
        return [LinkRow(link) for link in self.span.links]


class CallRow(Struct, frozen=True):
    """The fields of a logical call or an attempt."""

    call: Logical | Try
    calls: Calls
    attempt: int
    attempts: int

    fields = CALL_FIELDS

    @property
    def one(self) -> Try:
        """The attempt whose fields these are; for a logical call, the last one."""
        return self.call.last if isinstance(self.call, Logical) else self.call

    @property
    def trace_id(self) -> str:
        return self.one.trace_id

    def field(self, name: str) -> Value | None:
        one, call = self.one, self.call
        ending = call.tries[-1] if isinstance(call, Logical) else call  # with the client span's outcome
        return {
            "caller": lambda: self.calls.of[one].first.caller,
            "callee": lambda: one.callee,
            "operation": lambda: one.operation,
            "duration": lambda: call.duration_ns,
            "network": lambda: one.network_ns,
            "lag": lambda: one.lag_ns,
            "status": lambda: STATUS_WORDS[ending.status],
            "error": lambda: call.error,
            "attempt": lambda: self.attempt,
            "attempts": lambda: self.attempts,
            "protocol": lambda: one.protocol,
            "async": lambda: one.asynchronous,
            "start": lambda: call.start_ns,
            "end": lambda: call.end_ns,
            "trace_id": lambda: one.trace_id,
        }[name]()

    def attribute(self, name: str) -> Value | None:
        return self.one.attribute(name, at_caller=isinstance(self.call, Logical))

    def resource(self, name: str) -> Value | None:
        rows = (SpanRow(span, self.calls.forest) for span in (self.one.exit, self.one.server) if span)
        return next((value for row in rows if (value := row.resource(name)) is not None), None)

    def events(self) -> list[EventRow]:
        return [EventRow(event) for span in (self.one.exit, self.one.server) if span for event in span.events]

    def links(self) -> list[LinkRow]:
        return [LinkRow(link) for span in (self.one.exit, self.one.server) if span for link in span.links]


class EventRow(Struct, frozen=True):
    """The fields of an event."""

    event: Event

    fields = EVENT_FIELDS

    def field(self, name: str) -> Value | None:
        return self.event.name if name == "name" else self.event.at_ns

    def attribute(self, name: str) -> Value | None:
        return read(self.event.attributes, name)


class LinkRow(Struct, frozen=True):
    """The fields of a link."""

    link: Link

    fields = LINK_FIELDS

    def field(self, name: str) -> Value | None:
        return self.link.trace_id if name == "trace_id" else self.link.span_id

    def attribute(self, name: str) -> Value | None:  # links of cases have no attributes
        return None


def holds(node: s.Expression, row: Row) -> bool:
    """Return whether a condition holds for `row`. A missing value makes a comparison false."""
    match node:
        case s.AnyOf():
            return any(holds(term, row) for term in node.terms)
        case s.AllOf():
            return all(holds(term, row) for term in node.terms)
        case s.Not():
            return not holds(node.term, row)
        case s.Within():
            return any(holds(node.where, each) for each in _list_parts(node.what, row))
        case s.Function(name="exists"):
            return value_of(node.arguments[0], row) is not None
        case s.Compare():
            return _compare(node, row)
        case s.OneOf():
            return _one_of(node, row)
        case _:
            typed = value_of(node, row)
            return typed is not None and typed.value is True


def _list_parts(what: str, row: Row) -> Iterable[Row]:
    """Return what belongs to a span, or the spans near it in the tree of its trace."""
    if what in ("event", "link"):
        return row.events() if what == "event" else row.links()
    assert isinstance(row, SpanRow)
    span, forest = row.span, row.forest
    parent = forest.parent(span)
    match what:
        case "parent":
            found = [] if parent is None else [parent]
        case "child":
            found = list(forest.children(span))
        case "sibling":
            found = [] if parent is None else [each for each in forest.children(parent) if each is not span]
        case "ancestor":
            found = list(forest.above(span))
        case _:
            found = [each for each in forest.spans if span in forest.above(each)]
    return [SpanRow(each, forest) for each in found]


def value_of(node: s.Expression | TypedValue, row: Row | None) -> TypedValue | None:
    """Return the value of an expression, or None if it is missing."""
    match node:
        case TypedValue():
            return node
        case s.AnyOf() | s.AllOf() | s.Not() | s.Within() | s.Compare() | s.OneOf() | s.Function(name="exists"):
            assert row is not None
            return TypedValue("boolean", holds(node, row))
        case s.Number():
            return TypedValue("number", Fraction(node.value))
        case s.Text():
            return TypedValue("text", node.plain)
        case s.Name():
            return _name(node.text, row)
        case s.Negative():
            inner = _number(node.value, row)
            return None if inner is None else TypedValue("number", -inner)
        case s.Arithmetic():
            left, right = _number(node.left, row), _number(node.right, row)
            if left is None or right is None or (node.operator == "/" and right == 0):
                return None
            return TypedValue("number", calculate(node.operator, left, right))
        case s.Function(name="json"):
            typed = value_of(node.arguments[0], row)
            part = None if typed is None else read_part(typed.value, node.keys)
            if isinstance(part, list | dict):
                raise NotCovered("JSON that is no single value")
            return None if part is None else TypedValue("any", part)
        case s.Function(name="lower" | "upper" | "len"):
            typed = value_of(node.arguments[0], row)
            if typed is not None and isinstance(typed.value, list):
                return TypedValue("number", Fraction(len(typed.value))) if node.name == "len" else None
            text = None if typed is None else as_text(typed.value)  # type: ignore[arg-type]
            if text is None:
                return None
            return (
                TypedValue("number", Fraction(len(text)))
                if node.name == "len"
                else TypedValue("text", getattr(text, node.name)())
            )
        case _:
            raise NotCovered(type(node).__name__)


def calculate(operator: str, left: Fraction, right: Fraction) -> Fraction:
    return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[operator](right)


def _number(node: s.Expression, row: Row | None) -> Fraction | None:
    typed = value_of(node, row)
    return None if typed is None else convert(typed, "number")


def _name(text: str, row: Row | None) -> TypedValue | None:
    if text in ("true", "false"):
        return TypedValue("boolean", text == "true")
    assert row is not None
    if text in row.fields:
        value = row.field(text)
        kind = row.fields[text]
        kind = "number" if kind in NUMBERS else "boolean" if kind == "boolean" else "text"
        if value is not None and kind == "number":
            return TypedValue("number", Fraction(value))  # type: ignore[arg-type]
        return None if value is None else TypedValue(kind, value)
    if text.startswith("resource."):
        value = row.resource(text.removeprefix("resource."))
    else:
        value = row.attribute(text.removeprefix("span."))
    return None if value is None else TypedValue("any", value)


def convert(typed: TypedValue, kind: str) -> Any:
    """Return a value converted to `kind`, or None if it cannot be converted."""
    if typed.kind == kind:
        return typed.value
    if typed.kind != "any":
        return None
    value: Any = typed.value
    if kind == "number":
        return as_number(value)
    if kind == "boolean":
        return {"true": True, "false": False}.get(str(as_text(value)))
    return as_text(value)


def elements(typed: TypedValue) -> list[TypedValue]:
    """Return the elements of an array, or a scalar as its only element."""
    if isinstance(typed.value, list):
        return [TypedValue("any", element) for element in typed.value]
    return [typed]


def relate(operator: str, left: TypedValue, right: TypedValue) -> bool:
    """Compare two values; compare arrays by their elements."""
    if operator in ("!=", "!~") and isinstance(left.value, list):
        return all(_relate(operator, element, right) for element in elements(left))
    if isinstance(left.value, list) or not isinstance(right.value, list):
        return any(_relate(operator, element, right) for element in elements(left))
    raise NotCovered("an array on the right")


def _relate(operator: str, left: TypedValue, right: TypedValue) -> bool:
    if left.kind == "any" and right.kind == "any":
        raise NotCovered("two attributes compared")
    if operator in ("=~", "!~", "contains"):
        text, pattern = convert(left, "text"), convert(right, "text")
        if text is None or pattern is None:
            return False
        if operator == "contains":
            return pattern in text
        return bool(re.search(pattern, text)) == (operator == "=~")
    kind = right.kind if left.kind == "any" else left.kind
    a, b = convert(left, kind), convert(right, kind)
    return a is not None and b is not None and ORDERS[operator](a, b)


def _is_null(node: s.Expression) -> bool:
    return isinstance(node, s.Name) and node.text == "null"


def _compare(node: s.Compare, row: Row) -> bool:
    if _is_null(node.left) or _is_null(node.right):
        value = value_of(node.right if _is_null(node.left) else node.left, row)
        return {"==": value is None, "!=": value is not None}.get(node.operator, False)
    left, right = _side(node.left, node.right, row), _side(node.right, node.left, row)
    if left is None or right is None:
        return False
    if isinstance(right.value, list) and node.operator in ORDERS:
        mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(node.operator, node.operator)
        return relate(mirrored, right, left)
    if node.operator == "contains" and isinstance(left.value, list):
        return any(_relate("==", element, right) for element in elements(left))
    return relate(node.operator, left, right)


def _side(node: s.Expression, other: s.Expression, row: Row) -> TypedValue | None:
    """Return one side of a comparison; compared with ``kind`` or ``status``, a name is a word."""
    if isinstance(node, s.Name) and isinstance(other, s.Name) and row.fields.get(other.text) in ("kind", "status"):
        return TypedValue("text", node.text)
    return value_of(node, row)


def _one_of(node: s.OneOf, row: Row) -> bool:
    typed = value_of(node.value, row)
    return typed is not None and is_one_of(typed, node, row)


def is_one_of(typed: TypedValue, node: s.OneOf, row: Row | None) -> bool:
    """Return whether a value is, or with ``not in`` is not, among the options."""
    if not node.negated:
        return any(_is(element, option, row, node) for element in elements(typed) for option in node.options)
    if any(_is_missing(element, option) for element in elements(typed) for option in node.options):
        return False
    return not any(_is(element, option, row, node) for element in elements(typed) for option in node.options)


def _is(typed: TypedValue, option: s.Expression, row: Row | None, node: s.OneOf) -> bool:
    if isinstance(option, s.ValueRange):
        number = convert(typed, "number")
        return number is not None and Fraction(option.low.value) <= number <= Fraction(option.high.value)
    other = _side(option, node.value, row) if row is not None else value_of(option, row)
    return other is not None and _relate("==", typed, other)


def _is_missing(typed: TypedValue, option: s.Expression) -> bool:
    return isinstance(option, s.ValueRange | s.Number | s.Negative) and convert(typed, "number") is None


def is_stable(node: s.Expression | None) -> bool:
    """Return whether the fields of an expression are final once a span has arrived."""
    return node is None or not any(
        (isinstance(part, s.Name) and part.text in UNSTABLE_FIELDS)
        or (isinstance(part, s.Within) and part.what in RELATIVES)
        for part in s.walk(node)
    )
