"""Live traces: rows derived in memory from spans that have just arrived, without waiting for the store."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.derivation import derive_rows
from spanproof.collector.calls.peer_answers import read_answers
from spanproof.collector.calls.peers import KnownPeers
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.topology.affected_traces import add_extracted_attributes
from spanproof.collector.topology.proxies import read_proxies
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.span_index import NO_ENTRY_LINKS

if TYPE_CHECKING:
    from spanproof.collector.storage.interface import SpanStore
    from spanproof.collector.storage.store import ArrivedSpans

# Table or view of the store -> in-memory table that covers it. Without links, `hops` equals `attempts`.
_SOURCE_TABLES: Final = {
    "spans": "spans",
    "traces": "traces",
    "topology": "topology",
    "attempts": "attempts",
    "combined_calls": "combined_calls",
    "separate_attempts": "separate_attempts",
    "separate_calls": "separate_calls",
    "hops": "attempts",
}
_CALLS_VIEW_SQL: Final = "SELECT sql FROM duckdb_views() WHERE view_name = 'calls'"
# For more spans, deriving all traces again takes longer than the store needs for the new spans.
_MAX_SPANS: Final = 2000
_TRUE, _ZERO, _UNFINISHED = pa.scalar(True, pa.bool_()), pa.scalar(0, pa.int32()), pa.scalar(0, pa.int64())
_EXCEPTION = pa.scalar("exception", pa.string())


class LiveTraces:
    """Traces that this process started, as their spans arrive.

    On `connection`, the store's tables contain only the spans that `publish` has published and the rows derived from
    them. Resources, scopes, rules and all other tables are those of the store. `add_arrived` may be called in another
    thread.
    """

    def __init__(self, store: SpanStore) -> None:
        self.connection = store.cursor()
        self._store = store
        self._root_parent_ids: dict[bytes, int] = {}  # trace -> span id of this process's own span, never exported
        self._arrived: list[pa.Table] = []
        self._lock = threading.Lock()
        self.is_complete = True  # all expected spans can be published
        ((rules,),) = self.connection.execute("SELECT rules FROM rules").fetchall()
        self._answers = read_answers(self.connection)
        self._rules = ServiceRules.from_row(rules)
        self._tables = {
            table: _ReplaceableTable(store.read_empty_table(table)) for table in dict.fromkeys(_SOURCE_TABLES.values())
        }
        for covered, source in _SOURCE_TABLES.items():
            self.connection.register(covered, self._tables[source])
        # the store's view reads the store's tables
        ((calls_sql,),) = self.connection.execute(_CALLS_VIEW_SQL).fetchall()
        self.connection.execute(calls_sql.replace("CREATE VIEW", "CREATE TEMP VIEW", 1))

    @property
    def has_open_evidence(self) -> bool:
        """Whether it is open how published calls are to be read, or when published spans end."""
        calls, topology = self._tables["combined_calls"], self._tables["topology"]
        return calls.has_values("doubt") or topology.has_nulls("end_ns")

    def read_table(self, table: str) -> pa.Table:
        """Return the published rows of a table of the store."""
        return self._tables[table].table

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def expect_traces(self, root_parent_ids: Mapping[str, str]) -> None:
        """Expect spans of these traces. Each trace id maps to the span id that is the parent of its roots."""
        added = {bytes.fromhex(trace_id): int(span_id, 16) for trace_id, span_id in root_parent_ids.items()}
        # a new dict: a concurrent add_arrived keeps the one it has read
        self._root_parent_ids = {**self._root_parent_ids, **added}

    def add_arrived(self, arrived: ArrivedSpans) -> None:
        """Keep the spans of the expected traces."""
        is_expected = pc.is_in(
            arrived.spans["trace_id"].combine_chunks().storage, pa.array(self._root_parent_ids, pa.binary(16))
        )
        expected = arrived.spans if pc.all(is_expected).as_py() else arrived.spans.filter(is_expected)
        with self._lock:
            if self.is_complete:
                self._arrived.append(expected)
                self.is_complete = sum(map(len, self._arrived)) <= _MAX_SPANS

    def publish(self) -> bool:
        """Publish the spans that have arrived, and their derived rows.

        Return False if the store must be used from now on: there are too many spans, or links tie them to other traces.
        """
        with self._lock:
            if self._arrived:
                self._arrived = [pa.concat_tables(self._arrived).combine_chunks()]
            arrived = tuple(self._arrived)
        if self.is_complete and arrived and not self._publish_spans(*arrived):
            self.is_complete = False
        return self.is_complete

    def _publish_spans(self, spans: pa.Table) -> bool:
        batch = self._make_span_batch(spans)
        duplicates = batch.find_duplicates()
        if duplicates:
            batch = batch.drop_rows(duplicates)
            spans = spans.filter(pc.is_in(spans["span_key"], batch.column("span_key")))
        if batch.has_entry_links.any():
            return False
        parts = {"spans": [spans]}
        known = KnownPeers(self._store.services, self._answers)
        proxies = read_proxies(self.connection, self._rules.proxies)
        for name, rows in derive_rows(batch, NO_ENTRY_LINKS, self._rules, known, proxies):
            parts.setdefault(name, []).append(rows)
        for name, table in self._tables.items():
            table.replace(parts.get(name, []))
        return True

    def _make_span_batch(self, spans: pa.Table) -> SpanBatch:
        """Return the spans with the columns that ``sql/new_spans.sql`` reads from the store."""
        trace_ids = spans["trace_id"].combine_chunks()
        attributes = spans["attributes"].combine_chunks()
        root_parent_ids = pa.array(self._root_parent_ids.values(), pa.uint64()).take(
            pc.index_in(trace_ids.storage, pa.array(self._root_parent_ids, pa.binary(16)))
        )
        copied_columns = (
            "span_key", "trace_id", "span_id", "parent_id", "service", "name", "kind", "start_ns", "status",
            "resource_key", "scope_key",
        )  # fmt: skip
        columns = {
            **{name: spans[name] for name in copied_columns},
            "end_ns": pc.if_else(pc.equal(spans["end_ns"], _UNFINISHED), pa.scalar(None, pa.int64()), spans["end_ns"]),
            "dirty": pa.repeat(_TRUE, len(spans)),
            "keys": attributes.field("keys"),
            "texts": attributes.field("texts"),
            "has_trigger_parent": pc.equal(spans["parent_id"], root_parent_ids).fill_null(False),
            "has_links": pc.greater(pc.list_value_length(spans["links"]), _ZERO),
            "has_exception": _find_exceptions(spans["events"].combine_chunks()),
        }
        return SpanBatch(add_extracted_attributes(pa.table(columns)))


def _find_exceptions(events: pa.ListArray) -> pa.Array:
    """Return which spans have an exception event."""
    is_exception = pc.equal(events.flatten().field("name"), _EXCEPTION)
    span_rows = pc.list_parent_indices(events).filter(is_exception)
    found = np.zeros(len(events), np.bool_)
    found[span_rows.to_numpy()] = True
    return pa.array(found)


class _ReplaceableTable:
    """A table registered with DuckDB; each query reads the content set last."""

    def __init__(self, empty: pa.Table) -> None:
        self._schema = empty.schema
        self._parts = [empty]
        self._table: pa.Table | None = empty

    def replace(self, parts: list[pa.Table]) -> None:
        """Replace the content with these parts."""
        self._parts, self._table = parts or [self._schema.empty_table()], None

    def has_values(self, column: str) -> bool:
        """Return whether any row has a value in a column."""
        return any(part[column].null_count < len(part) for part in self._parts)

    def has_nulls(self, column: str) -> bool:
        """Return whether any row has no value in a column."""
        return any(part[column].null_count for part in self._parts)

    @property
    def table(self) -> pa.Table:
        """The content, with the columns of the store's table; built only when read, as few tables are."""
        if self._table is None:
            parts = [part.select(self._schema.names).cast(self._schema) for part in self._parts]
            self._table = pa.concat_tables(parts)
        return self._table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the table through the Arrow PyCapsule interface."""
        return self.table.__arrow_c_stream__(requested_schema)
