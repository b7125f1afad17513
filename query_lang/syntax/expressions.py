"""Nodes of expressions and selections. Every node knows its range in the text (``at``)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

Arrow: TypeAlias = Literal["->", "->>", "~>", "=>"]
Comparator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">=", "=~", "!~", "contains"]
Unit: TypeAlias = Literal["", "ns", "%", "pp", "/s"]


@dataclass(frozen=True, slots=True)
class TextRange:
    """A stretch of the text: offsets in characters, ``end`` exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its unit: durations in nanoseconds, percentages as fractions (1 % is 0.01)."""

    value: Decimal
    unit: Unit
    at: TextRange


@dataclass(frozen=True, slots=True)
class Text:
    """A string: literal parts, and names (:class:`Name`) to be put in between."""

    parts: tuple[str | Name, ...]
    at: TextRange

    @property
    def plain(self) -> str:
        """The text as written, with ``{name}`` where a name is to be put in."""
        return "".join(part if isinstance(part, str) else "{" + part.text + "}" for part in self.parts)


@dataclass(frozen=True, slots=True)
class Name:
    """A word: a field, an attribute, a variable or a service, by where it stands."""

    text: str
    at: TextRange


@dataclass(frozen=True, slots=True)
class ValueRange:
    """``low..high``, both included."""

    low: Number
    high: Number
    at: TextRange


@dataclass(frozen=True, slots=True)
class Response:
    """A part of an HTTP response: ``response.json.a[0]`` is part ``json`` with keys ``("a", 0)``."""

    step: str | None
    part: str
    keys: tuple[str | int, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Within:
    """``event[…]`` or ``link[…]``: one of them satisfies the condition."""

    what: Literal["event", "link"]
    where: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class SpanSelection:
    """Spans of a service: its entry spans, or any (``span``); of any service where ``service`` is None."""

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
    """``name(arguments)``."""

    name: str
    arguments: tuple[Expression, ...]
    at: TextRange
    name_at: TextRange


@dataclass(frozen=True, slots=True)
class Compare:
    """``left operator right``."""

    operator: Comparator
    left: Expression
    right: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class OneOf:
    """``value in options``, or ``not in``."""

    value: Expression
    options: tuple[Expression, ...]
    negated: bool
    at: TextRange


@dataclass(frozen=True, slots=True)
class AnyOf:
    """``a or b``."""

    terms: tuple[Expression, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class AllOf:
    """``a and b``."""

    terms: tuple[Expression, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Not:
    """``not a``."""

    term: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``left operator right``."""

    operator: Literal["+", "-", "*", "/"]
    left: Expression
    right: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class Negative:
    """``-value``."""

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
