"""Derives calls from spans: who asked whom, how it went, and which attempts belong together.

All traces that have changed since the last time are worked on at once, column by column: ``sql/around.sql`` finds them,
`fresh` reads their spans, `tree` says where each stands, `exchanges` who asked whom, `attempts` which of these are one
call; `derived` writes it down.
"""

from __future__ import annotations

from contextlib import closing
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from spanproof.collector.attempts import link_attempts
from spanproof.collector.derived import execute_with, write_calls, write_continued, write_traces, write_tree
from spanproof.collector.exchanges import describe, find_continued, pair
from spanproof.collector.fresh import Fresh, Links, fetch, read_fresh
from spanproof.collector.tree import place

if TYPE_CHECKING:
    import duckdb

    from spanproof.collector.store import Store

_DERIVED_WITHOUT_LINKS: Final = ("traces", "tree", "exchanges", "calls")
DERIVED: Final = (*_DERIVED_WITHOUT_LINKS, "entry_links", "continuations")
# How many new spans are derived at once: so that what is at hand of them stays within the memory there is.
_AT_ONCE: Final = 500_000


_STATE: Final = "SELECT last_span_key, EXISTS (FROM entry_links), proxies, max_retry_gap_ns FROM derivation, rules"
_GROWN: Final = """
CREATE OR REPLACE TEMP TABLE around AS
SELECT trace_id, true AS dirty, bool_or(kind IN (2, 5) AND len(links) > 0) AS links
FROM spans WHERE span_key BETWEEN $first AND $last
GROUP BY trace_id
"""
_ENTRY_LINKS: Final = """
INSERT INTO entry_links SELECT trace_id, span_key, link.trace_id, link.span_id
FROM (SELECT trace_id, span_key, unnest(links) AS link FROM spans SEMI JOIN rows USING (span_key))
"""
_KNOWN: Final = """
SELECT
    count(*) FILTER (dirty), least(min(first_key), $first), greatest(max(last_key), $last), count(first_key) > 0,
    bool_or(links)
FROM around LEFT JOIN traces USING (trace_id)
"""


def derive(store: Store) -> int:
    """Bring the derived tables up to date with the spans stored so far; return how many traces changed.

    Duplicates of a span (same trace, span id, kind and service) are dropped on the way: the one that ends
    last stays.
    """
    changed = 0
    with store.lock, store.telemetry.measure_derivation() as tell_traces, closing(store.cursor()) as connection:
        newest = store.last_key  # where spans keep coming, what comes from now on is for the next time
        derived = -1
        while derived < newest:
            derived, more = _derive_next(connection, newest)
            changed += more
        tell_traces(changed)
    return changed


def _derive_next(connection: duckdb.DuckDBPyConnection, newest: int) -> tuple[int, int]:
    """Derive the next new spans, in a transaction; return up to which key that was, and how many traces changed."""
    connection.execute("BEGIN")
    try:
        ((derived, linked, proxies, max_retry_gap_ns),) = connection.execute(_STATE).fetchall()
        changed = 0
        if derived < 0:
            _delete(connection, DERIVED, "true")  # all is to be derived again
        if derived < newest:
            first, derived = derived + 1, min(newest, derived + _AT_ONCE)
            spans, changed = _read(connection, first, derived, linked=linked)
            if len(spans):  # what was forgotten has left keys that no span has
                _write(connection, spans, frozenset(proxies), max_retry_gap_ns)
            connection.execute("UPDATE derivation SET last_span_key = $derived", {"derived": derived})
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return derived, changed


def _read(connection: duckdb.DuckDBPyConnection, first: int, last: int, *, linked: bool) -> tuple[Fresh, int]:
    """Read all spans of the traces to which those with these keys belong, and of the traces tied to them by links.

    Deletes what was derived of these, and duplicates among them; returns also how many they are.
    """
    keys = {"first": first, "last": last}
    connection.execute(_around() if linked else _GROWN, keys)
    ((changed, first, last, known, links),) = connection.execute(_KNOWN, keys).fetchall()
    if links and not linked:
        connection.execute(_around(), keys)
        ((changed, first, last, known, _),) = connection.execute(_KNOWN, keys).fetchall()
    if known:
        tables = DERIVED if linked else _DERIVED_WITHOUT_LINKS
        _delete(connection, tables, "trace_id IN (SELECT trace_id FROM around WHERE dirty)")
    return _drop_doubles(connection, read_fresh(connection, first, last)), int(changed)


def _write(connection: duckdb.DuckDBPyConnection, spans: Fresh, proxies: frozenset[str], max_retry_gap_ns: int) -> None:
    """Derive all that there is to these spans."""
    tree = place(spans, proxies)
    write_traces(connection, spans)
    write_tree(connection, spans, tree)
    links = _read_links(connection, spans)
    write_continued(connection, spans, find_continued(spans, tree, links))
    pairs = pair(spans, tree, links, proxies)
    exchanges = describe(
        spans, tree, pairs, lambda: fetch(connection, "SELECT DISTINCT service FROM resources")["service"]
    )
    attempts, calls = link_attempts(spans, exchanges, pairs.askers, max_retry_gap_ns)
    write_calls(connection, exchanges, attempts, calls)


def _delete(connection: duckdb.DuckDBPyConnection, tables: tuple[str, ...], condition: str) -> None:
    for table in tables:
        connection.execute(f"DELETE FROM {table} WHERE {condition}")  # noqa: S608 (fixed names)


def _drop_doubles(connection: duckdb.DuckDBPyConnection, spans: Fresh) -> Fresh:
    """Delete all but one of the spans that have ids, kind and service in common: the one that ends last stays."""
    doubles = spans.find_doubles()
    if not doubles:
        return spans
    rows = pa.table({"span_key": spans.keys[doubles]})
    execute_with(connection, "DELETE FROM spans WHERE span_key IN (SELECT span_key FROM rows)", rows)
    return spans.without(doubles)


def _read_links(connection: duckdb.DuckDBPyConnection, spans: Fresh) -> Links:
    """Write down what entry spans link to, and read that of all that are here."""
    if not spans.linking.any():
        return Links(np.array([], np.int64), [])
    rows = pa.table({"span_key": spans.keys[spans.linking & spans.dirty]})
    execute_with(connection, _ENTRY_LINKS, rows)
    return spans.find_links(fetch(connection, "SELECT l.* FROM entry_links l SEMI JOIN around USING (trace_id)"))


@cache
def _around() -> str:
    return resources.files("spanproof.collector").joinpath("sql", "around.sql").read_text(encoding="utf-8")
