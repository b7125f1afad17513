"""Nodes of statements and of the items of a proof file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from spanproof.query_lang.syntax.claims import Claim, Clause, Expectation, PathSegment, ShareClause, Step
from spanproof.query_lang.syntax.expressions import Expression, Name, Negative, Number, Selection, Text, TextRange


@dataclass(frozen=True, slots=True)
class Let:
    """``let name = value``."""

    name: Name
    value: Expression
    at: TextRange


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object with names in it that are put in when it is sent."""

    pairs: tuple[tuple[Text, Json], ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class JsonArray:
    """A JSON array."""

    items: tuple[Json, ...]
    at: TextRange


Json: TypeAlias = JsonObject | JsonArray | Text | Number | Name | Negative


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a ``when``, its ``kind`` the word that it begins with.

    ``key`` is a header's, parameter's or file field's name; ``rate`` is that of ``repeat N at rate``. ``value`` is
    missing only for a ``tls`` by itself.
    """

    kind: str
    key: Text | None
    value: Json | Expression | None
    rate: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class When:
    """Send a request. ``kind`` is an HTTP ``method`` upper-case, ``grpc``, ``publish``, ``run`` or ``trace``."""

    kind: str
    targets: tuple[Text | Name, ...]
    options: tuple[Option, ...]
    name: Name | None
    at: TextRange

    def option(self, kind: str) -> Option | None:
        """Return the option of a kind that stands once at most, if it is there."""
        return next((option for option in self.options if option.kind == kind), None)


@dataclass(frozen=True, slots=True)
class SettleStatement:
    """``settle within limit quiet quiet``."""

    limit: Expression
    quiet: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """``over last D``, ``since T`` or ``between T and T``."""

    kind: Literal["last", "since", "between"]
    bounds: tuple[Expression, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Given:
    """Judge stored traces; with ``baseline`` they are what others are compared with."""

    start: Selection | None
    window: TimeWindow
    where: Expression | None
    baseline: bool
    at: TextRange


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """``p95(duration(A)) by service over last 1h every 1m``: a number, of groups and steps of time."""

    value: Expression
    by: Name | None
    given: Given
    step: Expression | None
    at: TextRange


@dataclass(frozen=True, slots=True)
class Apply:
    """Use a definition."""

    name: str
    arguments: tuple[Expression, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Hook:
    """Statements that prepare or clean up."""

    time: Literal["before", "after"]
    statements: tuple[Statement, ...]
    at: TextRange


Statement: TypeAlias = Let | When | SettleStatement | Given | Apply | Hook | Expectation


@dataclass(frozen=True, slots=True)
class Proof:
    """A named list of statements."""

    name: str
    tags: tuple[str, ...]
    statements: tuple[Statement, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Define:
    """Statements under a name, with parameters."""

    name: str
    parameters: tuple[Name, ...]
    statements: tuple[Statement, ...]
    at: TextRange


@dataclass(frozen=True, slots=True)
class Use:
    """Bring in another file's ``let`` and ``define``."""

    path: Text
    at: TextRange


Item: TypeAlias = Let | Proof | Define | Use | Hook
Node: TypeAlias = (
    Expression | Claim | Expectation | Statement | Item | PathSegment | Step | ShareClause | Clause | Option | Json
)
