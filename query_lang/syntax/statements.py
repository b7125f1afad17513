"""Nodes of statements and of the top-level items of a proof file."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from spanproof.query_lang.syntax.claims import Claim, Clause, Expectation, PathSegment, ShareClause, Step
from spanproof.query_lang.syntax.expressions import Expression, Name, Negative, Number, Selection, Text, TextRange


class Let(Struct, frozen=True):
    """Variable ``let name = value``; without a value, it must be set from outside."""

    name: Name
    value: Expression | None
    at: TextRange


class JsonObject(Struct, frozen=True):
    """JSON object. Its names are replaced by their values when it is sent."""

    pairs: tuple[tuple[Text, Json], ...]
    at: TextRange


class JsonArray(Struct, frozen=True):
    """JSON array."""

    items: tuple[Json, ...]
    at: TextRange


Json: TypeAlias = JsonObject | JsonArray | Text | Number | Name | Negative


class Option(Struct, frozen=True):
    """Option of a ``when``. ``kind`` is its first word.

    ``key`` is the name of a header, parameter or file field. ``rate`` is that of ``repeat N at rate``. ``value`` is
    None only for ``tls`` without a file.
    """

    kind: str
    key: Text | None
    value: Json | Expression | None
    rate: Expression | None
    at: TextRange


class When(Struct, frozen=True):
    """Request of a proof. ``kind`` is an upper-case HTTP method, ``grpc``, ``publish``, ``run`` or ``trace``."""

    kind: str
    targets: tuple[Text | Name, ...]
    options: tuple[Option, ...]
    name: Name | None
    at: TextRange

    def option(self, kind: str) -> Option | None:
        """Return the option of a kind that occurs at most once, or None."""
        return next((option for option in self.options if option.kind == kind), None)


class SettleStatement(Struct, frozen=True):
    """Statement ``settle within limit quiet quiet``."""

    limit: Expression
    quiet: Expression | None
    at: TextRange


class TimeWindow(Struct, frozen=True):
    """Time window ``over last D``, ``since T`` or ``between T and T``."""

    kind: Literal["last", "since", "between"]
    bounds: tuple[Expression, ...]
    at: TextRange


class Given(Struct, frozen=True):
    """Selection of stored traces to judge, or, with ``baseline``, of the traces to compare with."""

    start: Selection | None
    window: TimeWindow
    where: Expression | None
    baseline: bool
    at: TextRange


class MetricQuery(Struct, frozen=True):
    """Query ``p95(duration(A)) by service over last 1h every 1m``: one number per group and time step."""

    value: Expression
    by: tuple[Name, ...]
    given: Given
    step: Expression | None
    at: TextRange


class Apply(Struct, frozen=True):
    """Use of a definition: ``apply name(arguments)``."""

    name: str
    arguments: tuple[Expression, ...]
    at: TextRange


class Hook(Struct, frozen=True):
    """Statements that run before or after a proof: ``before`` and ``after``."""

    time: Literal["before", "after"]
    statements: tuple[Statement, ...]
    at: TextRange


Statement: TypeAlias = Let | When | SettleStatement | Given | Apply | Hook | Expectation


class Proof(Struct, frozen=True):
    """Proof: a named list of statements."""

    name: str
    tags: tuple[str, ...]
    statements: tuple[Statement, ...]
    at: TextRange


class Declaration(Struct, frozen=True):
    """``retries A -> B`` or ``distinct A -> B``: whether attempts that are possibly one call are one."""

    kind: Literal["retries", "distinct"]
    call: Selection
    at: TextRange


class Define(Struct, frozen=True):
    """Definition: named statements with parameters."""

    name: str
    parameters: tuple[Name, ...]
    statements: tuple[Statement, ...]
    at: TextRange


class Use(Struct, frozen=True):
    """Import of another file's ``let`` and ``define`` items."""

    path: Text
    at: TextRange


Item: TypeAlias = Let | Proof | Define | Use | Hook | Declaration
Node: TypeAlias = (
    Expression | Claim | Expectation | Statement | Item | PathSegment | Step | ShareClause | Clause | Option | Json
)
