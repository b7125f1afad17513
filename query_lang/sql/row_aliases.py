"""Aliases of the tables that a query reads for one kind of row, the joins between them, and the query's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from msgspec import Struct, field

from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.sql.read_tables import compile_table
from spanproof.query_lang.syntax import vocabulary as v

ALL_TRACES_SQL: Final = "(SELECT DISTINCT trace_id, true AS settled, true AS trusting FROM topology)"
# Time of each span that its children cover. Overlaps count once, and children are clipped to the span.
CHILD_COVERAGE_SQL: Final = """(
    SELECT
        parent_key,
        sum(greatest(0, clipped_end_ns - greatest(clipped_start_ns, coalesce(previous_end_ns, clipped_start_ns))))
            AS covered_ns
    FROM (
        SELECT *, max(clipped_end_ns) OVER (
            PARTITION BY parent_key ORDER BY clipped_start_ns, clipped_end_ns
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS previous_end_ns
        FROM (
            SELECT
                t.parent_key, greatest(t.start_ns, parent.start_ns) AS clipped_start_ns,
                least(t.end_ns, parent.end_ns) AS clipped_end_ns
            FROM {topology} t
            JOIN {traces} sel ON sel.trace_id = t.trace_id
            JOIN {topology} parent ON parent.span_key = t.parent_key
        )
        WHERE clipped_end_ns > clipped_start_ns
    )
    GROUP BY parent_key
)"""


class SqlParameters(Struct):
    """Parameters of a query: values by name, the table of its traces, and how open evidence is read."""

    values: dict[str, object] = field(default_factory=dict)
    traces: str = "selected"
    reading: Reading = field(default_factory=Reading)

    def with_traces(self, traces: str) -> SqlParameters:
        """Return parameters that share the values of this query but read another table of traces."""
        return SqlParameters(self.values, traces, self.reading)

    def table(self, name: str) -> str:
        """Return the FROM item of a table, without an alias."""
        return compile_table(name, self.reading)

    def add(self, value: object) -> str:
        """Add a value. Return the SQL of its parameter."""
        name = f"p{len(self.values)}"
        if isinstance(value, Decimal):
            value = int(value) if value == int(value) else float(value)
        self.values[name] = value
        return f"${name}"


class RowAliases(Struct, frozen=True):
    """Kind of row that a condition is about, and the aliases of its tables in the query.

    ``span_aliases`` are aliases of the table ``spans``, in the order in which attributes are searched. ``alias`` is
    that of ``topology`` (spans) or of ``calls`` or ``attempts`` (calls). ``span_joins`` holds the join of each span
    alias. ``needed_joins`` collects the names of the joins that conditions need.
    """

    kind: v.RowKind
    span_aliases: tuple[str, ...]
    alias: str
    is_attempt: bool = False
    span_joins: Mapping[str, str] = field(default_factory=dict)
    needed_joins: set[str] = field(default_factory=set)


def compile_joins(aliases: RowAliases, parameters: SqlParameters) -> list[str]:
    """Return the joins that the compiled conditions about `aliases` need."""
    joins = []
    if "call" in aliases.needed_joins:
        alias = aliases.alias
        joins.append(f"JOIN {parameters.table('calls')} {alias}_call ON {alias}_call.call_key = {alias}.call_key")
    for span in aliases.span_aliases:
        if span in aliases.needed_joins and span in aliases.span_joins:
            joins.append(aliases.span_joins[span])
        if "resource" in aliases.needed_joins:
            owner = aliases.alias if aliases.kind == "span" else span
            joins.append(f"LEFT JOIN resources {span}_resource ON {span}_resource.resource_key = {owner}.resource_key")
        if "scope" in aliases.needed_joins:
            joins.append(f"LEFT JOIN scopes {span}_scope ON {span}_scope.scope_key = {span}.scope_key")
        if "self_time" in aliases.needed_joins:
            covered = CHILD_COVERAGE_SQL.format(traces=parameters.traces, topology=parameters.table("topology"))
            joins.append(f"LEFT JOIN {covered} {span}_covered ON {span}_covered.parent_key = {aliases.alias}.span_key")
    return joins


def make_span_aliases(span: str, alias: str) -> RowAliases:
    """Return the aliases of a span: its row of ``topology`` and, if needed, the row of ``spans`` joined to it."""
    return RowAliases(
        "span", (span,), alias, span_joins={span: f"JOIN spans {span} ON {span}.span_key = {alias}.span_key"}
    )


def make_call_aliases(alias: str, *, attempts: bool) -> RowAliases:
    """Return the aliases of a call. Its spans are ``client``, ``server``, ``wrapper`` and ``outer_wrapper``."""
    spans = ("client", "server", "wrapper", "outer_wrapper")
    joins = {span: f"LEFT JOIN spans {span} ON {span}.span_key = {alias}.{span}_key" for span in spans}
    return RowAliases("call", spans, alias, attempts, joins)
