"""Selections as SQL: the selected rows of spans or calls, within the traces in the table ``selected``.

The table is ``selected(trace_id, settled, trusting)``. ``settled``: no more spans are expected. ``trusting``: rows
count even if a later span could change their topology (true once settled, or after the time limit).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import (
    ConditionCompiler,
    SqlValue,
    compile_operation_match,
    compile_service_match,
)
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.row_aliases import (
    ALL_TRACES_SQL,
    RowAliases,
    SqlParameters,
    compile_joins,
    make_call_aliases,
    make_span_aliases,
)
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v

_COUNT_WITNESSES: Final = 5
# The span that shows an attempt; `{attempt}` is empty, or the alias of the attempt and a dot.
ATTEMPT_SPAN_SQL: Final = (
    "CASE WHEN {attempt}arrived OR {attempt}async THEN coalesce({attempt}server_key, {attempt}client_key)"
    " ELSE coalesce({attempt}client_key, {attempt}server_key) END"
)


class SelectedRows(Struct, dict=True):
    """Rows of a selection: its ``FROM`` and ``WHERE``, and the SQL of the columns that claims need."""

    aliases: RowAliases
    tables: list[str]
    where: list[str]
    trace_id_sql: str
    witness_sql: str  # a list of span keys
    start_sql: str
    end_sql: str
    parameters: SqlParameters
    bindings: Bindings
    values_by_function: Mapping[str, SqlValue] = field(default_factory=dict)  # functions with a column of their own
    other_aliases: list[RowAliases] = field(default_factory=list)  # other rows that conditions refer to

    @cached_property
    def condition_compiler(self) -> ConditionCompiler:
        """Compiler of conditions about these rows."""
        return ConditionCompiler(self.aliases, self.parameters, self.bindings)

    def compile_value(self, function: str, arguments: tuple[s.Expression, ...] = ()) -> SqlValue:
        """Return the SQL of the result of a function of the selection, per row."""
        if function in self.values_by_function:
            return self.values_by_function[function]
        if function in ("count", "rate"):
            return SqlValue("1", "number")
        if function == "error_rate" and self.aliases.kind == "call":
            return SqlValue(f"{self.aliases.alias}.failed", "boolean")
        if function == "values":
            return self.condition_compiler.compile_value(arguments[1])
        return self.condition_compiler.compile_value(
            s.Name("error" if function == "error_rate" else function, arguments[0].at)
        )

    def compile_group_key(self, by: tuple[s.Name, ...]) -> str:
        """Return the SQL of the text of a field or, of several, of a list of their texts; NULL without fields."""
        texts = [SQL.cast(self.condition_compiler.compile_value(field).sql, "text") for field in by]
        if len(texts) > 1:
            return f"[{', '.join(texts)}]"
        return texts[0] if texts else SQL.null("text")

    def build_select(self, columns: str, *where: str) -> str:
        """Return the complete ``SELECT`` with the joins that its columns and conditions need."""
        tables = [*self.tables, *self._compile_joins()]
        conditions = " AND ".join([*self.where, *where]) or "true"
        return f"SELECT {columns} FROM {' '.join(tables)} WHERE {conditions}"

    def _compile_joins(self) -> list[str]:
        joins = []
        for row in (self.aliases, *self.other_aliases):
            joins += compile_joins(row, self.parameters)
        return joins


def compile_trace_join(table: str, alias: str, parameters: SqlParameters) -> tuple[str, list[str]]:
    """Return the FROM clause of a table's rows in the selected traces, and the conditions under which they count."""
    if parameters.traces == ALL_TRACES_SQL:
        return f"{parameters.table(table)} {alias}", []
    return (
        f"{parameters.traces} sel JOIN {parameters.table(table)} {alias} ON {alias}.trace_id = sel.trace_id",
        [f"(sel.trusting OR {alias}.definite)"],
    )


def select_trace_rows(parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    """Return one row per selected trace: from its first start to its last end, in error if its root is.

    Its end is NULL if a span has not ended.
    """
    spans = f"{parameters.table('topology')} t ON t.trace_id = sel.trace_id"
    return SelectedRows(
        aliases=RowAliases("span", (), "trace"),
        tables=[
            "(SELECT sel.trace_id, min(t.start_ns) AS start_ns,"
            " CASE WHEN count(t.end_ns) = count(*) THEN max(t.end_ns) END AS end_ns,"
            f" coalesce({SQL.any_true('t.error')} FILTER (t.depth = 0), false) AS error,"
            f" {SQL.first_by('t.span_key', 't.depth')} AS root_key"
            f" FROM {parameters.traces} sel LEFT JOIN {spans} GROUP BY sel.trace_id) trace"
        ],
        where=[],
        trace_id_sql="trace.trace_id",
        witness_sql="[trace.root_key]",
        start_sql="trace.start_ns",
        end_sql="trace.end_ns",
        parameters=parameters,
        bindings=bindings,
        values_by_function={
            "duration": SqlValue("(trace.end_ns - trace.start_ns)", "duration"),
            "error_rate": SqlValue("trace.error", "boolean"),
        },
    )


def select_counted_traces(parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    """Return one row per selected trace, to be counted: only the first traces, by their ids, have a witness."""
    witnesses = f"SELECT trace_id FROM {parameters.traces} ORDER BY trace_id LIMIT {_COUNT_WITNESSES}"
    roots = (
        f"SELECT trace_id, min(start_ns) AS start_ns, {SQL.first_by('span_key', 'start_ns')} AS root_key"
        f" FROM {parameters.table('topology')} WHERE depth = 0 AND trace_id IN ({witnesses}) GROUP BY trace_id"
    )
    return SelectedRows(
        aliases=RowAliases("span", (), "root"),
        tables=[f"{parameters.traces} sel LEFT JOIN ({roots}) root ON root.trace_id = sel.trace_id"],
        where=[],
        trace_id_sql="sel.trace_id",
        witness_sql="[root.root_key]",
        start_sql="root.start_ns",
        end_sql="NULL",
        parameters=parameters,
        bindings=bindings,
    )


def select_rows(node: s.Selection, parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    """Return the rows of a selection. Of several that start at the same instant, all are the first, or the last."""
    if node.pick is not None:
        rows, all_rows = (select_rows(replace(node, pick=None), parameters, bindings) for _ in range(2))
        start = f"{'min' if node.pick == 'first' else 'max'}({all_rows.start_sql})"
        picked = f"{all_rows.build_select(f'{all_rows.trace_id_sql}, {start}')} GROUP BY {all_rows.trace_id_sql}"
        rows.where.append(f"({rows.trace_id_sql}, {rows.start_sql}) IN ({picked})")
        return rows
    if isinstance(node, s.CallSelection):
        return _select_calls(node, parameters, bindings)
    table, counts = compile_trace_join("topology", "t", parameters)
    rows = SelectedRows(
        aliases=make_span_aliases("s", "t"),
        tables=[table],
        where=["t.is_entry", *counts] if node.spans == "entry" else [],
        trace_id_sql="t.trace_id",
        witness_sql="[t.span_key]",
        start_sql="t.start_ns",
        end_sql="t.end_ns",
        parameters=parameters,
        bindings=bindings,
    )
    rows.where += compile_span_match(node, "t", rows.condition_compiler)
    return rows


def select_requests_with_calls(node: s.CallSelection, parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    """Return the requests that the caller served, each with the number of such calls that it made (``calls``)."""
    rows = select_rows(node.caller, parameters, bindings)
    calls = select_rows(node, parameters, bindings)
    counted = f"{calls.build_select('c.caller_entry, count(*) AS n')} GROUP BY c.caller_entry"
    rows.tables.append(f"LEFT JOIN ({counted}) made ON made.caller_entry = t.span_key")
    rows.values_by_function = {"calls": SqlValue("coalesce(made.n, 0)", "number")}
    return rows


def compile_span_match(node: s.SpanSelection, alias: str, conditions: ConditionCompiler) -> list[str]:
    """Return the conditions under which a span, whose row of ``topology`` has `alias`, is the target."""
    parameters, bindings = conditions.parameters, conditions.bindings
    where = []
    if node.service is not None:
        where.append(compile_service_match(f"{alias}.service", node.service, parameters, bindings))
    if node.operation is not None:
        where.append(compile_operation_match(f"{alias}.name", node.operation, parameters, bindings))
    if node.where is not None:
        where.append(conditions.compile_condition(node.where))
    return where


def _select_calls(node: s.CallSelection, parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    table = "attempts" if node.attempts else "calls"
    source, counts = compile_trace_join(table, "c", parameters)
    rows = SelectedRows(
        aliases=make_call_aliases("c", attempts=node.attempts),
        tables=[source],
        where=[
            *{"->": ["NOT c.async"], "~>": ["c.async"]}.get(node.arrow, []),
            *counts,
            *(["c.attempt IS NOT NULL"] if node.attempts else []),
        ],
        trace_id_sql="c.trace_id",
        witness_sql=f"[{ATTEMPT_SPAN_SQL.format(attempt='c.')}]"
        if node.attempts
        else "[coalesce(c.client_key, c.server_key)]",
        start_sql="c.start_ns",
        end_sql="c.end_ns",
        parameters=parameters,
        bindings=bindings,
    )
    rows.where += compile_call_match(node, "c", rows)
    return rows


def compile_call_match(node: s.CallSelection, alias: str, rows: SelectedRows) -> list[str]:
    """Return the conditions under which a call is selected. Those on the caller are about its entry span."""
    parameters, bindings = rows.parameters, rows.bindings
    where = []
    if node.caller.service is not None:
        where.append(compile_service_match(f"{alias}.caller", node.caller.service, parameters, bindings))
    if node.caller.operation is not None or node.caller.where is not None:
        rows.tables.append(
            f"JOIN {parameters.table('topology')} caller_topology ON caller_topology.span_key = {alias}.caller_entry"
        )
        caller_conditions = ConditionCompiler(make_span_aliases("caller_span", "caller_topology"), parameters, bindings)
        rows.other_aliases.append(caller_conditions.row)
        where += compile_span_match(
            s.SpanSelection("entry", None, node.caller.operation, node.caller.where, node.caller.at),
            "caller_topology",
            caller_conditions,
        )
    if node.callee.service is not None:
        where.append(compile_service_match(f"{alias}.callee", node.callee.service, parameters, bindings))
    if node.callee.operation is not None:
        where.append(compile_operation_match(f"{alias}.operation", node.callee.operation, parameters, bindings))
    if node.callee.where is not None:
        where.append(rows.condition_compiler.compile_condition(node.callee.where))
    return where


def find_row_kind(node: s.Selection) -> v.RowKind:
    """Return the kind of row that a condition on the selection is about."""
    return "call" if isinstance(node, s.CallSelection) else "span"


def is_stable(node: s.Selection, *expressions: s.Expression | None) -> bool:
    """Return whether a row, once definite, stays unchanged while spans are still arriving.

    A logical call can gain another attempt that changes its values, so only its existence is stable. Another row may
    turn out to be the first, or the last.
    """
    if node.pick is not None:
        return False
    if isinstance(node, s.CallSelection) and not node.attempts:
        return all(part is None for part in (node.caller.where, node.callee.where, *expressions))
    targets = (node.caller, node.callee) if isinstance(node, s.CallSelection) else (node,)
    conditions = [target.where for target in targets] + list(expressions)
    return not any(
        (isinstance(part, s.Name) and part.text in v.UNSTABLE_FIELDS)
        or (isinstance(part, s.Within) and part.what in v.RELATIVES)
        for condition in conditions
        if condition is not None
        for part in s.walk(condition)
    )
