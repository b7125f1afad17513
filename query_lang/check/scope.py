"""Scope of an expression: the names it can use, and the kind of row of a condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.vocabulary import ValueType

ANY_TYPE = ValueType("any")


class Scope(Struct, frozen=True):
    """Scope of an expression: the names it can use, and the kind of row that a condition is about."""

    variables: Mapping[str, ValueType] = field(default_factory=dict)
    row: v.RowKind | None = None
    baseline: bool = False
    requests: frozenset[str] = frozenset()
    repeated: frozenset[str | None] = frozenset()  # requests with many responses; None is the latest

    def with_row(self, row: v.RowKind) -> Scope:
        """Return the same scope inside a condition about a span, a call, an event or a link."""
        return replace(self, row=row)


def make_untyped_variables(nodes: Iterable[s.Name]) -> dict[str, ValueType]:
    """Return variables of any type for `nodes`."""
    return {node.text: ANY_TYPE for node in nodes}


def is_field(node: object, scope: Scope) -> bool:
    """Return whether `node` names a field or attribute of the row that a condition is about."""
    constant = isinstance(node, s.Name) and (node.text in scope.variables or node.text in v.CONSTANTS)
    return scope.row is not None and isinstance(node, s.Name) and not constant


def read_as_number(node: s.Expression, type_: ValueType, scope: Scope) -> ValueType:
    """Return the type of `node` as an operand of a calculation. An attribute is read as a number."""
    is_values = isinstance(node, s.Function) and node.name == "values"
    return replace(type_, kind="number") if type_.kind == "any" and (is_values or is_field(node, scope)) else type_
