"""Looks for traces, newest first, by what one of their spans is like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from uuid import UUID

from spanproof.api.http.parameters import EARLIEST_NS, LATEST_NS
from spanproof.query_lang.compile.duckdb_dialect import SQL

if TYPE_CHECKING:
    import duckdb

    from spanproof.query_lang.compile.conditions import SqlParameters

_LAST_ID = UUID(int=2**128 - 1)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class PagePosition:
    """Where a page of traces ended, and which span was the last to have arrived for the first page."""

    last_key: int
    start_ns: int
    trace_id: UUID


@dataclass(frozen=True, slots=True)
class TraceSearch:
    """Which traces are looked for: `since_ns` and `until_ns` bound their start.

    `of_span` are SQL conditions about a row `s` of the table ``spans``, all of which one span must meet;
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


@dataclass(frozen=True, slots=True)
class FoundTrace:
    """A trace in short. The root is the topmost span, an orphan where the span above it is not stored."""

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
    """Find traces; the place tells where to go on, and is None where there are no more."""
    after = search.after or PagePosition(_read_last_key(connection), LATEST_NS, _LAST_ID)
    chosen = "true"
    if search.span_conditions:
        where = " AND ".join((*search.span_conditions, "s.span_key <= $last_key"))
        chosen = f"trace_id IN (SELECT s.trace_id FROM spans s WHERE {where})"  # noqa: S608 (values are parameters)
    rows = connection.execute(
        read_sql("spanproof.api.http", "traces.sql", chosen=chosen),
        search.parameters.values
        | {
            "last_key": after.last_key, "before_ns": after.start_ns, "before_id": after.trace_id,
            "since_ns": search.since_ns, "until_ns": search.until_ns, "min_ns": search.min_ns,
            "max_ns": search.max_ns, "limit": search.limit + 1,
        },
    ).fetchall()  # fmt: skip
    found = [FoundTrace(*row) for row in rows[: search.limit]]
    more = len(rows) > search.limit
    return found, PagePosition(after.last_key, found[-1].start_ns, found[-1].trace_id) if more else None


def compile_attribute_condition(parameters: SqlParameters, key: str, text: str) -> str:
    """Return the condition that an attribute, or an element of its array, is `text`; a resource's as ``resource.``."""
    value = parameters.add(text)
    if key.startswith("resource."):
        read = SQL.attribute("attributes", key.removeprefix("resource."))
        matching = f"SELECT resource_key FROM resources WHERE {_compile_contains(read, value)}"  # noqa: S608 (quoted)
        return f"s.resource_key IN ({matching})"
    return _compile_contains(SQL.attribute("s.attributes", key.removeprefix("span.")), value)


def compile_error_condition(error: bool) -> str:
    """Return the condition that a span has failed, or not."""
    return f"s.span_key {'' if error else 'NOT '}IN (SELECT span_key FROM topology WHERE error)"  # noqa: S608 (fixed texts)


def read_sql(package: str, name: str, **parts: str) -> str:
    """Return the SQL of a file of a package, each `{name}` in it replaced by the part of that name."""
    return _PLACEHOLDER.sub(lambda found: parts[found[1]], _load_sql_file(package, name))


@cache
def _load_sql_file(package: str, name: str) -> str:
    text = resources.files(package).joinpath("sql", name).read_text(encoding="utf-8")
    # no part may come to stand in a comment, which ends where a line of it does
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


def _compile_contains(attribute: str, value: str) -> str:
    return f"coalesce(list_contains(attribute_texts({attribute}), {value}), false)"


def _read_last_key(connection: duckdb.DuckDBPyConnection) -> int:
    """Read up to which span all are in the tree."""
    ((last_key,),) = connection.execute("SELECT last_span_key FROM derivation").fetchall()
    return int(last_key)
