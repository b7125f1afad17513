"""Search for traces, newest first, by conditions on one of their spans."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import Struct

from spanproof.api.http.parameters import EARLIEST_NS, LATEST_NS
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.row_aliases import SqlParameters

if TYPE_CHECKING:
    import duckdb


_LAST_ID = UUID(int=2**128 - 1)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class PagePosition(Struct, frozen=True):
    """The end of a page of traces, and the last span that had arrived when the first page was read."""

    last_key: int
    start_ns: int
    trace_id: UUID


class TraceSearch(Struct, frozen=True):
    """A search for traces whose start is between `since_ns` and `until_ns`.

    `span_conditions` are SQL conditions on a row `s` of the table ``spans``, all of which one span must meet;
    `parameters` has the values in them.
    """

    span_conditions: tuple[str, ...]
    parameters: SqlParameters
    limit: int
    since_ns: int = EARLIEST_NS
    until_ns: int = LATEST_NS
    min_ns: int = 0
    max_ns: int = LATEST_NS
    after: PagePosition | None = None


class FoundTrace(Struct, frozen=True):
    """A summary of a trace. The root is the topmost span, which is an orphan if its parent is not stored."""

    trace_id: UUID
    start_ns: int
    duration_ns: int
    spans: int
    services: list[str]
    errors: int
    root: dict[str, Any]


def find_traces(
    connection: duckdb.DuckDBPyConnection, search: TraceSearch
) -> tuple[list[FoundTrace], PagePosition | None]:
    """Return the traces of a page and the position where the next page begins, or None if there are no more."""
    after = search.after or PagePosition(_read_last_key(connection), LATEST_NS, _LAST_ID)
    trace_condition = "true"
    if search.span_conditions:
        where = " AND ".join((*search.span_conditions, "s.span_key <= $last_key"))
        trace_condition = f"trace_id IN (SELECT s.trace_id FROM spans s WHERE {where})"  # noqa: S608 (values are parameters)
    rows = connection.execute(
        read_sql("spanproof.api.http", "traces.sql", trace_condition=trace_condition),
        search.parameters.values
        | {
            "last_key": after.last_key, "before_ns": after.start_ns, "before_id": after.trace_id,
            "since_ns": search.since_ns, "until_ns": search.until_ns, "min_ns": search.min_ns,
            "max_ns": search.max_ns, "limit": search.limit + 1,
        },
    ).fetchall()  # fmt: skip
    traces = [FoundTrace(*row) for row in rows[: search.limit]]
    if len(rows) <= search.limit:
        return traces, None
    return traces, PagePosition(after.last_key, traces[-1].start_ns, traces[-1].trace_id)


def compile_attribute_condition(parameters: SqlParameters, key: str, text: str) -> str:
    """Return the condition that an attribute, or an element of its array, equals `text`.

    A `key` that starts with ``resource.`` names an attribute of the resource.
    """
    value = parameters.add(text)
    if key.startswith("resource."):
        attribute = SQL.attribute("attributes", key.removeprefix("resource."))
        matching = f"SELECT resource_key FROM resources WHERE {_compile_contains(attribute, value)}"  # noqa: S608 (quoted)
        return f"s.resource_key IN ({matching})"
    return _compile_contains(SQL.attribute("s.attributes", key.removeprefix("span.")), value)


def compile_error_condition(error: bool) -> str:
    """Return the condition that a span has failed, or has not failed."""
    return f"s.span_key {'' if error else 'NOT '}IN (SELECT span_key FROM topology WHERE error)"  # noqa: S608 (fixed texts)


def read_sql(package: str, name: str, **parts: str) -> str:
    """Return the SQL of a package's file, with each `{name}` in it replaced by the part of that name."""
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], _load_sql_file(package, name))


@cache
def _load_sql_file(package: str, name: str) -> str:
    text = resources.files(package).joinpath("sql", name).read_text(encoding="utf-8")
    # comments are removed: a part of several lines in a comment would leave it after the first
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


def _compile_contains(attribute: str, value: str) -> str:
    return f"coalesce(list_contains(attribute_texts({attribute}), {value}), false)"


def _read_last_key(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the key of the last span that is derived into the topology."""
    ((last_key,),) = connection.execute("SELECT last_span_key FROM derivation").fetchall()
    return int(last_key)
