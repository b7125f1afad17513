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
from msgspec import Struct
from msgspec.structs import replace

from spanproof.collector.calls.attempts import build_attempts
from spanproof.collector.calls.logical_calls import link_attempts
from spanproof.collector.calls.peer_answers import NO_ANSWERS, build_answer_rows, find_outdated_names, read_answers
from spanproof.collector.calls.peers import KnownPeers
from spanproof.collector.calls.rows import (
    TableRows,
    build_attempt_and_call_rows,
    build_continuation_rows,
    build_linked_rows,
    build_topology_rows,
    build_trace_rows,
)
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.calls.span_pairs import find_continuations, pair_spans
from spanproof.collector.storage.arrow_columns import execute_with_rows, fetch_table
from spanproof.collector.topology.affected_traces import (
    AffectedTraces,
    add_affected_traces,
    find_affected_traces,
    find_outdated_traces,
    read_span_batch,
)
from spanproof.collector.topology.message_deliveries import find_related_traces, read_deliveries, store_deliveries
from spanproof.collector.topology.nesting import find_nesting
from spanproof.collector.topology.proxies import Proxies, read_proxies
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.span_index import NO_ENTRY_LINKS, EntryLinks
from spanproof.collector.topology.topology import build_topology

if TYPE_CHECKING:
    import duckdb

    from spanproof.collector.storage.interface import SpanStore

_DERIVED_TABLES_WITHOUT_LINKS: Final = (
    "traces", "topology", "attempts", "combined_calls", "separate_attempts", "separate_calls", "deliveries",
)  # fmt: skip
DERIVED_TABLES: Final = (*_DERIVED_TABLES_WITHOUT_LINKS, "entry_links", "continuations")
# Maximum number of new spans in one transaction; it limits the memory that their columns take.
_BATCH_SPANS: Final = 400_000
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
            _clear_tables(connection, (*DERIVED_TABLES, "answers"))  # everything is derived again
        if derived < newest:
            first, derived = derived + 1, min(newest, derived + _BATCH_SPANS)
            affected = find_affected_traces(connection, first, derived, has_links=has_links)
            service_rules = ServiceRules.from_row(rules)
            context = _Context(
                service_rules,
                KnownPeers(services, read_answers(connection)),
                read_proxies(connection, service_rules.proxies),
                has_links,
            )
            new_answers = _derive_traces(connection, affected, context)
            changed = len(affected.dirty)
            outdated = find_outdated_names(connection, new_answers)
            if len(outdated):
                context = replace(context, known=KnownPeers(services, read_answers(connection)))
                _derive_traces(connection, find_outdated_traces(connection, outdated), context)
                changed += len(outdated)
            connection.execute("UPDATE derivation SET last_span_key = $derived", {"derived": derived})
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return derived, changed


class _Context(Struct, frozen=True):
    """What derivation depends on besides the spans."""

    rules: ServiceRules
    known: KnownPeers
    proxies: Proxies
    has_links: bool  # the store contains entry links


def _derive_traces(connection: duckdb.DuckDBPyConnection, affected: AffectedTraces, context: _Context) -> pa.Table:
    """Derive these traces; return the rows added to ``answers``."""
    new_answers = NO_ANSWERS
    affected, spans = _read_spans_and_related(connection, affected)
    if affected.has_derived_rows:
        tables = DERIVED_TABLES if context.has_links else _DERIVED_TABLES_WITHOUT_LINKS
        _delete_traces(connection, tables, affected.dirty)
    spans = _delete_duplicates(connection, spans)
    if not len(spans):  # deleted traces leave keys without a span
        return new_answers
    store_deliveries(connection, read_deliveries(spans))
    links = _store_and_read_links(connection, affected, spans)
    for table, rows in derive_rows(spans, links, context.rules, context.known, context.proxies):
        if len(rows):
            execute_with_rows(connection, f"INSERT INTO {table} BY NAME FROM rows", rows)
            new_answers = rows if table == "answers" else new_answers
    return new_answers


def _read_spans_and_related(
    connection: duckdb.DuckDBPyConnection, affected: AffectedTraces
) -> tuple[AffectedTraces, SpanBatch]:
    """Read the spans of these traces, and of those in which messages of theirs were delivered again."""
    while True:
        spans = read_span_batch(connection, affected)
        deliveries = read_deliveries(spans)
        related = find_related_traces(connection, deliveries) if len(deliveries) else deliveries
        if not len(related):
            return affected, spans
        affected = add_affected_traces(connection, affected, related)


def derive_rows(
    spans: SpanBatch, links: EntryLinks, rules: ServiceRules, known: KnownPeers, proxies: Proxies
) -> Iterator[TableRows]:
    """Yield all rows of the derived tables for these spans."""
    are_proxies = proxies.find(spans)
    nesting = find_nesting(spans, build_topology(spans, are_proxies, frozenset(rules.edges)))
    topology = nesting.topology
    yield build_trace_rows(spans)
    yield build_topology_rows(spans, topology)
    yield build_continuation_rows(spans, find_continuations(spans, topology, links))
    pairs = pair_spans(spans, nesting, links, are_proxies)
    attempt_table, answers = build_attempts(spans, nesting, pairs, known, are_proxies)
    yield "answers", build_answer_rows(answers, known)
    linked = link_attempts(spans, nesting, pairs, attempt_table, rules.max_retry_gap_ns)
    yield from build_attempt_and_call_rows(attempt_table, linked)
    yield from build_linked_rows(spans, topology, attempt_table, linked)


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
