"""``values(A, f) == values(B, g)`` as SQL: in each trace, the sets of values of two selections."""

from __future__ import annotations

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.check.operands import NUMERIC_KINDS
from spanproof.query_lang.check.types import to_selection
from spanproof.query_lang.sql.conditions import SqlValue
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.query_lang.sql.selections import SelectedRows, is_stable, select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueKind, ValueType


def compile_value_sets(node: s.Compare, bindings: Bindings) -> Plan:
    """Compile the comparison of two sets: one finding per trace in which both sides occur.

    With ``==``, the sets are equal; with ``!=``, they have no value in common. ``ok`` is NULL where a side has no
    value. ``value`` is the first value that breaks the claim; ``note`` is [1] if only the left side has it, [2] if only
    the right side has it, and [0] if both do.
    """
    parameters = SqlParameters(reading=bindings.reading)
    sides = [_select_side(side, parameters, bindings) for side in (node.left, node.right)]
    kinds = {value.kind for _, value in sides} - {"any"}
    kind = next(iter(kinds)) if len(kinds) == 1 else "text"
    left, right = (_compile_side(rows, value, kind) for rows, value in sides)
    if node.operator == "==":
        breaking = (
            "SELECT l.*, 1 AS side FROM lefts l ANTI JOIN rights USING (trace_id, value)"
            " UNION ALL SELECT r.*, 2 FROM rights r ANTI JOIN lefts USING (trace_id, value)"
        )
    else:
        breaking = "SELECT l.*, 0 AS side FROM lefts l SEMI JOIN rights USING (trace_id, value)"
    first = SQL.first_by("{'value': value, 'witness': witness, 'side': side}", "(start_ns, value, witness)")
    sql = f"""
    WITH lefts AS ({left}), rights AS ({right}),
    broken AS (
        SELECT trace_id, min(start_ns) AS start_ns, {first} AS first FROM ({breaking}) GROUP BY trace_id
    ),
    traces AS (
        SELECT trace_id, bool_or(is_left) AND bool_or(NOT is_left) AS is_complete
        FROM (SELECT trace_id, true AS is_left FROM lefts UNION ALL SELECT trace_id, false FROM rights)
        GROUP BY trace_id
    )
    SELECT
        t.trace_id, CASE WHEN t.is_complete THEN b.trace_id IS NULL END AS ok, b.first.value AS value,
        b.first.witness AS witness, coalesce(b.start_ns, 0) AS rank, [coalesce(b.first.side, 0)] AS note
    FROM traces t LEFT JOIN broken b USING (trace_id)
    """
    selections = [to_selection(side.arguments[0]) for side in (node.left, node.right) if isinstance(side, s.Function)]
    return Plan(
        sql,
        parameters.values,
        "all",
        ValueType(kind),
        is_stable=node.operator == "!=" and all(each is not None and is_stable(each) for each in selections),
        undecided_reason="one side has no values",
    )


def _select_side(side: s.Expression, parameters: SqlParameters, bindings: Bindings) -> tuple[SelectedRows, SqlValue]:
    assert isinstance(side, s.Function)  # noqa: S101 (checked before)
    selection = to_selection(side.arguments[0])
    assert selection is not None  # noqa: S101 (checked before)
    rows = select_rows(selection, parameters, bindings)
    return rows, rows.compile_value(side.name, side.arguments)


def _compile_side(rows: SelectedRows, value: SqlValue, kind: ValueKind) -> str:
    """Return the query for the values of one side, as values of a kind: numbers as doubles, attributes as texts."""
    compared = value.sql
    if kind in NUMERIC_KINDS:
        compared = SQL.to_double(value.sql)
    elif value.kind != kind:
        compared = SQL.cast(value.sql, "text")
    return rows.build_select(
        f"{rows.trace_id_sql} AS trace_id, {compared} AS value, {rows.witness_sql} AS witness,"
        f" {rows.start_sql} AS start_ns",
        f"{compared} IS NOT NULL",
    )
