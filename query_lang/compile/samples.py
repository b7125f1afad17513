"""Samples of estimates as SQL: the values of each trace, by group."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.aggregates import compile_values
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.query_lang.sql.selections import select_rows
from spanproof.query_lang.syntax import nodes as s

SampleKind: TypeAlias = Literal["rate", "mean", "quantile"]
FIELD_SEPARATOR: Final = "\x1f"  # between the texts of a group's fields
MISSING_FIELD: Final = "\x1e"  # of a field without a value


class SampleQuery(Struct, frozen=True):
    """Query for a sample, one row per trace and group, or one per value of a quantile.

    Its columns are ``grp``, the texts of the group's fields in one; ``trace``, a hash of the trace id; ``begin_ns``,
    the first start of the trace's values; ``n``, the number of values; and ``total``, their sum (of a rate: the number
    that is true; of a quantile: the value itself).
    """

    kind: SampleKind
    sql: str
    parameters: dict[str, object]


def compile_sample(node: s.Function, by: tuple[s.Name, ...], bindings: Bindings, traces: str) -> SampleQuery:
    """Return the query for the values of an error rate, a mean or a quantile over the traces in the table `traces`."""
    values, parameters = compile_values(node, by, bindings, traces)
    trace = f"{SQL.hash('trace_id')} AS trace"
    group = compile_group_text("grp", len(by))
    if node.name not in ("error_rate", "avg"):
        columns = f"{group} AS grp, {trace}, start_ns AS begin_ns, 1 AS n, {SQL.to_double('value')} AS total"
        return SampleQuery("quantile", f"SELECT {columns} FROM ({values})", parameters)
    total = "count(*) FILTER (value)" if node.name == "error_rate" else SQL.to_double("sum(value)")
    sql = (
        f"SELECT {group if by else SQL.quote('')} AS grp, {trace}, min(start_ns) AS begin_ns, count(*) AS n,"
        f" {total} AS total FROM ({values}) GROUP BY trace_id{', grp' if by else ''}"
    )
    return SampleQuery("rate" if node.name == "error_rate" else "mean", sql, parameters)


def compile_group_text(group: str, fields: int) -> str:
    """Return the SQL of the texts of a group's fields in one."""
    texts = [group] if fields < 2 else [f"{group}[{number}]" for number in range(1, fields + 1)]
    for separator in (FIELD_SEPARATOR, MISSING_FIELD):  # which a text should not contain
        texts = [f"replace({text}, {SQL.quote(separator)}, ' ')" for text in texts]
    filled = [f"coalesce({text}, {SQL.quote(MISSING_FIELD)})" for text in texts]
    return f" || {SQL.quote(FIELD_SEPARATOR)} || ".join(filled)


def is_calls_per_request(node: s.Function) -> bool:
    """Return whether a mean is that of the calls of each request, which needs the requests without calls, too."""
    inner = node.arguments[-1] if node.arguments else None
    return isinstance(inner, s.Function) and inner.name == "calls"


def compile_calls_sample(
    node: s.Function, by: tuple[s.Name, ...], bindings: Bindings, traces: str
) -> tuple[SampleQuery, SampleQuery]:
    """Return the queries for the calls, by group and caller, and for the requests of each caller.

    In both, the last text of ``grp`` is the caller; ``n`` is the number of calls, or of requests.
    """
    inner = node.arguments[-1]
    assert isinstance(inner, s.Function)  # noqa: S101 (checked before)
    selection = inner.arguments[0]
    assert isinstance(selection, s.CallSelection)  # noqa: S101 (checked before)
    caller = s.Name("caller", selection.at)
    calls = _count_rows(selection, (*by, caller), bindings, traces)
    return calls, _count_rows(selection.caller, (s.Name("service", selection.at),), bindings, traces)


def _count_rows(selection: s.Selection, by: tuple[s.Name, ...], bindings: Bindings, traces: str) -> SampleQuery:
    rows = select_rows(selection, SqlParameters(traces=traces, reading=bindings.reading), bindings)
    select = rows.build_select(
        f"{rows.trace_id_sql} AS trace_id, {rows.start_sql} AS start_ns, {rows.compile_group_key(by)} AS grp"
    )
    sql = (
        f"SELECT {compile_group_text('grp', len(by))} AS grp, {SQL.hash('trace_id')} AS trace,"
        f" min(start_ns) AS begin_ns, count(*) AS n, count(*) AS total FROM ({select}) GROUP BY trace_id, grp"
    )
    return SampleQuery("mean", sql, rows.parameters.values)
