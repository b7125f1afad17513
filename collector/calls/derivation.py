"""Derivation of calls from spans: topology, attempts and logical calls of all changed traces.

All traces that have changed since the last derivation are processed at once, in columns: `affected_traces` finds the
traces and reads their spans, `topology` gives each span its position, `attempts` pairs callers with callees,
`logical_calls` links the attempts of one call, and `rows` builds the rows that are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from spanproof.collector.calls.affected_traces import AffectedTraces, find_affected_traces, read_span_batch
from spanproof.collector.calls.attempts import build_attempts, find_continuations, pair_spans
from spanproof.collector.calls.logical_calls import link_attempts
from spanproof.collector.calls.rows import (
    TableRows,
    build_attempt_and_call_rows,
    build_continuation_rows,
    build_topology_rows,
    build_trace_rows,
)
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.calls.span_index import NO_ENTRY_LINKS, EntryLinks
from spanproof.collector.calls.topology import build_topology
from spanproof.collector.storage.arrow_columns import execute_with_rows, fetch_table

if TYPE_CHECKING:
    import duckdb

    from spanproof.collector.storage.interface import SpanStore

_DERIVED_TABLES_WITHOUT_LINKS: Final = ("traces", "topology", "attempts", "calls")
DERIVED_TABLES: Final = (*_DERIVED_TABLES_WITHOUT_LINKS, "entry_links", "continuations")
# Maximum number of new spans in one transaction; it limits the memory that their columns take.
_BATCH_SPANS: Final = 500_000
_DERIVATION_STATE_SQL: Final = "SELECT last_span_key, EXISTS (FROM entry_links), rules FROM derivation, rules"
_INSERT_ENTRY_LINKS_SQL: Final = """
INSERT INTO entry_links SELECT trace_id, span_key, link.trace_id, link.span_id
FROM (SELECT trace_id, span_key, unnest(links) AS link FROM spans SEMI JOIN rows USING (span_key))
"""


def derive_calls(store: SpanStore) -> int:
    """Bring the derived tables up to date with the stored spans; return the number of changed traces.

    Duplicates of a span (same trace, span id, kind and service) are dropped: the one that ends last stays.
    """
    changed = 0
    with store.lock, store.telemetry.measure_derivation() as report_traces, closing(store.cursor()) as connection:
        newest = store.last_span_key  # later spans wait for the next derivation, so that this one ends
        derived = -1
        while derived < newest:
            derived, batch_changed = _derive_next_batch(connection, newest, store.services)
            changed += batch_changed
        report_traces(changed)
    return changed


def _derive_next_batch(connection: duckdb.DuckDBPyConnection, newest: int, services: frozenset[str]) -> tuple[int, int]:
    """Derive the next new spans in a transaction; return the last derived key and the number of changed traces."""
    connection.execute("BEGIN")
    try:
        ((derived, has_links, rules),) = connection.execute(_DERIVATION_STATE_SQL).fetchall()
        changed = 0
        if derived < 0:
            _clear_tables(connection, DERIVED_TABLES)  # everything is derived again
        if derived < newest:
            first, derived = derived + 1, min(newest, derived + _BATCH_SPANS)
            affected = find_affected_traces(connection, first, derived, has_links=has_links)
            changed = len(affected.dirty)
            if affected.has_derived_rows:
                _delete_traces(
                    connection, DERIVED_TABLES if has_links else _DERIVED_TABLES_WITHOUT_LINKS, affected.dirty
                )
            spans = _delete_duplicates(connection, read_span_batch(connection, affected))
            if len(spans):  # deleted traces leave keys without a span
                links = _store_and_read_links(connection, affected, spans)
                for table, rows in derive_rows(spans, links, ServiceRules.from_row(rules), services):
                    if len(rows):
                        execute_with_rows(connection, f"INSERT INTO {table} BY NAME FROM rows", rows)
            connection.execute("UPDATE derivation SET last_span_key = $derived", {"derived": derived})
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return derived, changed


def derive_rows(
    spans: SpanBatch, links: EntryLinks, rules: ServiceRules, services: frozenset[str]
) -> Iterator[TableRows]:
    """Yield all rows of the derived tables for these spans.

    `services` are all known services.
    """
    proxies = frozenset(rules.proxies)
    topology = build_topology(spans, proxies)
    yield build_trace_rows(spans)
    yield build_topology_rows(spans, topology)
    yield build_continuation_rows(spans, find_continuations(spans, topology, links))
    pairs = pair_spans(spans, topology, links, proxies)
    attempt_table = build_attempts(spans, topology, pairs, services)
    linked, calls = link_attempts(spans, attempt_table, pairs.caller_rows, rules.max_retry_gap_ns)
    yield from build_attempt_and_call_rows(attempt_table, linked, calls)


def _clear_tables(connection: duckdb.DuckDBPyConnection, tables: tuple[str, ...]) -> None:
    for table in tables:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 (fixed names)


def _delete_traces(connection: duckdb.DuckDBPyConnection, tables: tuple[str, ...], rows: pa.Table) -> None:
    """Delete the derived rows of these traces."""
    for table in tables:
        execute_with_rows(connection, f"DELETE FROM {table} WHERE trace_id IN (SELECT trace_id FROM rows)", rows)  # noqa: S608 (fixed names)


def _delete_duplicates(connection: duckdb.DuckDBPyConnection, spans: SpanBatch) -> SpanBatch:
    """Delete all but one of the spans with the same ids, kind and service: the one that ends last stays."""
    duplicates = spans.find_duplicates()
    if not duplicates:
        return spans
    rows = pa.table({"span_key": spans.keys[duplicates]})
    execute_with_rows(connection, "DELETE FROM spans WHERE span_key IN (SELECT span_key FROM rows)", rows)
    return spans.drop_rows(duplicates)


def _store_and_read_links(
    connection: duckdb.DuckDBPyConnection, affected: AffectedTraces, spans: SpanBatch
) -> EntryLinks:
    """Store the links of new entry spans; return the links of all entry spans of the affected traces."""
    if not spans.has_entry_links.any():
        return NO_ENTRY_LINKS
    rows = pa.table({"span_key": spans.keys[spans.has_entry_links & spans.dirty]})
    execute_with_rows(connection, _INSERT_ENTRY_LINKS_SQL, rows)
    links_sql = "SELECT l.* FROM entry_links l SEMI JOIN rows USING (trace_id)"
    return spans.resolve_links(fetch_table(connection, links_sql, rows=affected.table))
