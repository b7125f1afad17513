"""Nodes of expressions and selections. Each node has its range in the text (``at``)."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

from msgspec import Struct

Arrow: TypeAlias = Literal["->", "->>", "~>", "=>"]
Comparator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">=", "=~", "!~", "contains"]
Part: TypeAlias = Literal["event", "link"]
Pick: TypeAlias = Literal["first", "last"]
Relative: TypeAlias = Literal["parent", "child", "ancestor", "descendant", "sibling"]
Unit: TypeAlias = Literal["", "ns", "%", "pp", "/s"]


class TextRange(Struct, frozen=True):
    """Range of the text: character offsets, ``end`` exclusive."""

    start: int
    end: int


class Number(Struct, frozen=True):
    """Number with its unit: durations in nanoseconds, percentages as fractions (1 % is 0.01)."""

    value: Decimal
    unit: Unit
    at: TextRange


class Text(Struct, frozen=True):
    """String: literal parts, and placeholders (:class:`Name`) between them."""

    parts: tuple[str | Name, ...]
    at: TextRange

    @property
    def plain(self) -> str:
        """Text as written, with ``{name}`` for each placeholder."""
        return "".join(part if isinstance(part, str) else "{" + part.text + "}" for part in self.parts)


class Name(Struct, frozen=True):
    """Name of a field, an attribute, a variable or a service, depending on its position."""

    text: str
    at: TextRange


class ValueRange(Struct, frozen=True):
    """Range ``low..high``, both ends inclusive."""

    low: Number
    high: Number
    at: TextRange


class Response(Struct, frozen=True):
    """Part of an HTTP response: ``response.json.a[0]`` is part ``json`` with keys ``("a", 0)``."""

    step: str | None
    part: str
    keys: tuple[str | int, ...]
    at: TextRange


class Within(Struct, frozen=True):
    """Condition on what belongs to a span, such as ``event[…]`` or ``parent[…]``: at least one of them satisfies it."""

    what: Part | Relative
    where: Expression
    at: TextRange


class SpanSelection(Struct, frozen=True):
    """Spans of a service: its entry spans, or all its spans (``span``). ``service`` None means any service.

    `pick` takes those that start first, or last, in each trace.
    """

    spans: Literal["entry", "any"]
    service: Name | Text | None
    operation: Text | None
    where: Expression | None
    at: TextRange
    pick: Pick | None = None


class CallSelection(Struct, frozen=True):
    """Logical calls from one service to another, or their single attempts (``try``).

    `pick` takes those that start first, or last, in each trace.
    """

    caller: SpanSelection
    arrow: Arrow
    callee: SpanSelection
    attempts: bool
    at: TextRange
    pick: Pick | None = None


class Function(Struct, frozen=True):
    """Function call ``name(arguments)``; ``keys`` lead to a part of the result, as in ``json(app.order).items[0]``."""

    name: str
    arguments: tuple[Expression, ...]
    at: TextRange
    name_at: TextRange
    keys: tuple[str | int, ...] = ()


class Compare(Struct, frozen=True):
    """Comparison ``left operator right``."""

    operator: Comparator
    left: Expression
    right: Expression
    at: TextRange


class OneOf(Struct, frozen=True):
    """Membership test ``value in options`` or ``value not in options``."""

    value: Expression
    options: tuple[Expression, ...]
    negated: bool
    at: TextRange


class AnyOf(Struct, frozen=True):
    """Disjunction ``a or b``."""

    terms: tuple[Expression, ...]
    at: TextRange


class AllOf(Struct, frozen=True):
    """Conjunction ``a and b``."""

    terms: tuple[Expression, ...]
    at: TextRange


class Not(Struct, frozen=True):
    """Negation ``not a``."""

    term: Expression
    at: TextRange


class Arithmetic(Struct, frozen=True):
    """Calculation ``left operator right``."""

    operator: Literal["+", "-", "*", "/"]
    left: Expression
    right: Expression
    at: TextRange


class Negative(Struct, frozen=True):
    """Negative value ``-value``."""

    value: Expression
    at: TextRange


Selection: TypeAlias = SpanSelection | CallSelection
Expression: TypeAlias = (
    Number
    | Text
    | Name
    | ValueRange
    | Response
    | Within
    | SpanSelection
    | CallSelection
    | Function
    | Compare
    | OneOf
    | AnyOf
    | AllOf
    | Not
    | Arithmetic
    | Negative
)
