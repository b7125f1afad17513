"""Derives calls from spans: who asked whom, how it went, and which attempts belong together.

All traces that have changed since the last time are worked on at once, column by column: `around` finds them and reads
their spans, `places` says where each stands, `exchanges` who asked whom, `attempts` which of these are one call;
`derived` lays that out as rows, which are written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from spanproof.collector.around import Around, find_around, read_spans
from spanproof.collector.attempts import link_attempts
from spanproof.collector.columns import execute_with, fetch
from spanproof.collector.derived import Rows, lay_out_calls, lay_out_continued, lay_out_traces, lay_out_tree
from spanproof.collector.exchanges import describe, find_continued, pair
from spanproof.collector.fresh import Fresh
from spanproof.collector.places import place
from spanproof.collector.rules import Rules
from spanproof.collector.span_ids import NO_LINKS, Links

if TYPE_CHECKING:
    import duckdb

    from spanproof.collector.store import Store

_DERIVED_WITHOUT_LINKS: Final = ("traces", "tree", "exchanges", "calls")
DERIVED: Final = (*_DERIVED_WITHOUT_LINKS, "entry_links", "continuations")
# How many new spans are derived at once: so that what is at hand of them stays within the memory there is.
_AT_ONCE: Final = 500_000
_STATE: Final = "SELECT last_span_key, EXISTS (FROM entry_links), rules FROM derivation, rules"
_ENTRY_LINKS: Final = """
INSERT INTO entry_links SELECT trace_id, span_key, link.trace_id, link.span_id
FROM (SELECT trace_id, span_key, unnest(links) AS link FROM spans SEMI JOIN rows USING (span_key))
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
            derived, more = _derive_next(connection, newest, store.services)
            changed += more
        tell_traces(changed)
    return changed


def _derive_next(connection: duckdb.DuckDBPyConnection, newest: int, services: frozenset[str]) -> tuple[int, int]:
    """Derive the next new spans, in a transaction; return up to which key that was, and how many traces changed."""
    connection.execute("BEGIN")
    try:
        ((derived, linked, rules),) = connection.execute(_STATE).fetchall()
        changed = 0
        if derived < 0:
            _delete(connection, DERIVED)  # all is to be derived again
        if derived < newest:
            first, derived = derived + 1, min(newest, derived + _AT_ONCE)
            around = find_around(connection, first, derived, linked=linked)
            changed = len(around.dirty)
            if around.known:
                _delete_of(connection, DERIVED if linked else _DERIVED_WITHOUT_LINKS, around.dirty)
            spans = _drop_doubles(connection, read_spans(connection, around))
            if len(spans):  # what was forgotten has left keys that no span has
                links = _read_links(connection, around, spans)
                for table, rows in work_out(spans, links, Rules.read(rules), services):
                    if len(rows):
                        execute_with(connection, f"INSERT INTO {table} BY NAME FROM rows", rows)
            connection.execute("UPDATE derivation SET last_span_key = $derived", {"derived": derived})
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return derived, changed


def work_out(spans: Fresh, links: Links, rules: Rules, services: frozenset[str]) -> Iterator[Rows]:
    """Yield all that there is to derive of these spans, as rows of the derived tables.

    `services` are all that are known.
    """
    proxies = frozenset(rules.proxies)
    tree = place(spans, proxies)
    yield lay_out_traces(spans)
    yield lay_out_tree(spans, tree)
    yield lay_out_continued(spans, find_continued(spans, tree, links))
    pairs = pair(spans, tree, links, proxies)
    exchanges = describe(spans, tree, pairs, services)
    attempts, calls = link_attempts(spans, exchanges, pairs.askers, rules.max_retry_gap_ns)
    yield from lay_out_calls(exchanges, attempts, calls)


def _delete(connection: duckdb.DuckDBPyConnection, tables: tuple[str, ...]) -> None:
    for table in tables:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 (fixed names)


def _delete_of(connection: duckdb.DuckDBPyConnection, tables: tuple[str, ...], rows: pa.Table) -> None:
    """Delete what was derived of these traces."""
    for table in tables:
        execute_with(connection, f"DELETE FROM {table} WHERE trace_id IN (SELECT trace_id FROM rows)", rows)  # noqa: S608 (fixed names)


def _drop_doubles(connection: duckdb.DuckDBPyConnection, spans: Fresh) -> Fresh:
    """Delete all but one of the spans that have ids, kind and service in common: the one that ends last stays."""
    doubles = spans.find_doubles()
    if not doubles:
        return spans
    rows = pa.table({"span_key": spans.keys[doubles]})
    execute_with(connection, "DELETE FROM spans WHERE span_key IN (SELECT span_key FROM rows)", rows)
    return spans.without(doubles)


def _read_links(connection: duckdb.DuckDBPyConnection, around: Around, spans: Fresh) -> Links:
    """Write down what entry spans link to, and read that of all that are here."""
    if not spans.linking.any():
        return NO_LINKS
    rows = pa.table({"span_key": spans.keys[spans.linking & spans.dirty]})
    execute_with(connection, _ENTRY_LINKS, rows)
    links = "SELECT l.* FROM entry_links l SEMI JOIN rows USING (trace_id)"
    return spans.find_links(fetch(connection, links, rows=around.table))
