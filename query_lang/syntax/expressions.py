"""Nodes of expressions and selections. Each node has its range in the text (``at``)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

Arrow: TypeAlias = Literal["->", "->>", "~>", "=>"]
Comparator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">=", "=~", "!~", "contains"]
Unit: TypeAlias = Literal["", "ns", "%", "pp", "/s"]


@dataclass(frozen=True, slots=True)
class TextRange:
    """Range of the text: character offsets, ``end`` exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Number:
    """Number with its unit: durations in nanoseconds, percentages as fractions (1 % is 0.01)."""

    value: Decimal
    unit: Unit
    at: TextRange


@dataclass(frozen=True, slots=True)
class Text:
    """String: literal parts, and placeholders (:class:`Name`) between them."""

    parts: tuple[str | Name, ...]
    at: TextRange

    @property
    def plain(self) -> str:
        """Text as written, with ``{name}`` for each placeholder."""
        return "".join(part if isinstance(part, str) else "{" + part.text + "}" for part in self.parts)


@dataclass(frozen=True, slots=True)
class Name:
    """Name of a field, an attribute, a variable or a service, depending on its position."""

    text: str
    at: TextRange


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Range ``low..high``, both ends inclusive."""

    low: Number
    high: Number
    at: TextRange


@dataclass(frozen=True, slots=True)
class Response:
    """Part of an HTTP response: ``response.json.a[0]`` is part ``json`` with keys ``("a", 0)``."""

    step: str | None
    part: str
    keys: tuple[str | int, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Within:
    """Condition ``event[…]`` or ``link[…]``: at least one event or link of the span satisfies it."""

    what: Literal["event", "link"]
    where: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class SpanSelection:
    """Spans of a service: its entry spans, or all its spans (``span``). ``service`` None means any service."""

    spans: Literal["entry", "any"]
    service: Name | Text | None
    operation: Text | None
    where: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class CallSelection:
    """Logical calls from one service to another, or their single attempts (``try``)."""

    caller: SpanSelection
    arrow: Arrow
    callee: SpanSelection
    attempts: bool
    at: TextRange


@dataclass(frozen=True, slots=True)
class Function:
    """Function call ``name(arguments)``."""

    name: str
    arguments: tuple[Expression, ...]
    at: TextRange
    name_at: TextRange


@dataclass(frozen=True, slots=True)
class Compare:
    """Comparison ``left operator right``."""

    operator: Comparator
    left: Expression
    right: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class OneOf:
    """Membership test ``value in options`` or ``value not in options``."""

    value: Expression
    options: tuple[Expression, ...]
    negated: bool
    at: TextRange


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Disjunction ``a or b``."""

    terms: tuple[Expression, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class AllOf:
    """Conjunction ``a and b``."""

    terms: tuple[Expression, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Not:
    """Negation ``not a``."""

    term: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Calculation ``left operator right``."""

    operator: Literal["+", "-", "*", "/"]
    left: Expression
    right: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Negative:
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
