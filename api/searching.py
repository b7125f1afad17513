"""Looks for traces, newest first, by what one of their spans is like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from uuid import UUID

from spanproof.api.parameters import EARLIEST_NS, LATEST_NS
from spanproof.collector.semconv import read_attribute

if TYPE_CHECKING:
    import duckdb

    from spanproof.query_lang.conditions import Parameters

_LAST_ID = UUID(int=2**128 - 1)
_PART = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of traces ended, and which span was the last to have arrived for the first page."""

    last_key: int
    start_ns: int
    trace_id: UUID


@dataclass(frozen=True, slots=True)
class Search:
    """Which traces are looked for: `since_ns` and `until_ns` bound their start.

    `of_span` are SQL conditions about a row `s` of the table ``spans``, all of which one span must meet;
    `parameters` has the values in them.
    """

    of_span: tuple[str, ...]
    parameters: Parameters
    limit: int
    since_ns: int = EARLIEST_NS
    until_ns: int = LATEST_NS
    min_ns: int = 0
    max_ns: int = LATEST_NS
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace in short. The root is the topmost span, an orphan where the span above it is not stored."""

    trace_id: UUID
    start_ns: int
    duration_ns: int
    spans: int
    services: list[str]
    errors: int
    root: dict[str, Any]


def find_traces(connection: duckdb.DuckDBPyConnection, search: Search) -> tuple[list[Summary], Place | None]:
    """Find traces; the place tells where to go on, and is None where there are no more."""
    after = search.after or Place(_read_last_key(connection), LATEST_NS, _LAST_ID)
    chosen = "true"
    if search.of_span:
        where = " AND ".join((*search.of_span, "s.span_key <= $last_key"))
        chosen = f"trace_id IN (SELECT s.trace_id FROM spans s WHERE {where})"  # noqa: S608 (values are parameters)
    rows = connection.execute(
        read_sql("traces.sql", chosen=chosen),
        search.parameters.values
        | {
            "last_key": after.last_key, "before_ns": after.start_ns, "before_id": after.trace_id,
            "since_ns": search.since_ns, "until_ns": search.until_ns, "min_ns": search.min_ns,
            "max_ns": search.max_ns, "limit": search.limit + 1,
        },
    ).fetchall()  # fmt: skip
    found = [Summary(*row) for row in rows[: search.limit]]
    more = len(rows) > search.limit
    return found, Place(after.last_key, found[-1].start_ns, found[-1].trace_id) if more else None


def match_attribute(parameters: Parameters, key: str, text: str) -> str:
    """Return the condition that an attribute, or an element of its array, is `text`; a resource's as ``resource.``."""
    value = parameters.add(text)
    if key.startswith("resource."):
        read = read_attribute("attributes", key.removeprefix("resource."))
        matching = f"SELECT resource_key FROM resources WHERE {_holds(read, value)}"  # noqa: S608 (quoted)
        return f"s.resource_key IN ({matching})"
    return _holds(read_attribute("s.attributes", key.removeprefix("span.")), value)


def match_error(error: bool) -> str:
    """Return the condition that a span has failed, or not."""
    return f"s.span_key {'' if error else 'NOT '}IN (SELECT span_key FROM tree WHERE error)"  # noqa: S608 (fixed texts)


def read_sql(name: str, **parts: str) -> str:
    """Read a file of SQL, with `parts` put in for what stands in braces."""
    return _PART.sub(lambda found: parts[found[1]], _load(name))


@cache
def _load(name: str) -> str:
    text = resources.files("spanproof.api").joinpath("sql", name).read_text(encoding="utf-8")
    # no part may come to stand in a comment, which ends where a line of it does
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


def _holds(attribute: str, value: str) -> str:
    return f"coalesce(list_contains(attribute_texts({attribute}), {value}), false)"


def _read_last_key(connection: duckdb.DuckDBPyConnection) -> int:
    """Read up to which span all are in the tree."""
    ((last_key,),) = connection.execute("SELECT last_span_key FROM derivation").fetchall()
    return int(last_key)
