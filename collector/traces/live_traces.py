"""Traces as they arrive: what is derived of them, in memory, so that nobody need wait until the store has it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.affected_traces import add_extracted_attributes
from spanproof.collector.calls.derivation import derive_rows
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.calls.span_index import NO_ENTRY_LINKS

if TYPE_CHECKING:
    from spanproof.collector.storage.store import ArrivedSpans, Store

# What covers which table of the store; paths go through `hops`, which without links are the exchanges.
_SOURCE_TABLES: Final = {
    "spans": "spans",
    "traces": "traces",
    "topology": "topology",
    "attempts": "attempts",
    "calls": "calls",
    "hops": "attempts",
}
# Of traces with more spans than these, deriving all anew would take longer than the store does for what is new.
_MAX_SPANS: Final = 2000
_TRUE, _ZERO = pa.scalar(True, pa.bool_()), pa.scalar(0, pa.int32())


class LiveTraces:
    """Traces that we began, as their spans arrive.

    To whoever asks by its `connection`, the store holds nothing but the spans that `show` was told to show, and what is
    derived of these; origins, rules and all else are those of the store. `take` may be called in another thread.
    """

    def __init__(self, store: Store) -> None:
        self.connection = store.cursor()
        self._store = store
        self._root_parent_ids: dict[bytes, int] = {}  # of each trace, the span id of our own span, which nobody exports
        self._arrived: list[pa.Table] = []
        self._lock = threading.Lock()
        self.is_complete = True  # all that is expected can be shown
        ((rules,),) = self.connection.execute("SELECT rules FROM rules").fetchall()
        self._rules = ServiceRules.from_row(rules)
        self._tables = {
            table: _ReplaceableTable(store.read_empty_table(table)) for table in dict.fromkeys(_SOURCE_TABLES.values())
        }
        for covered, shelf in _SOURCE_TABLES.items():
            self.connection.register(covered, self._tables[shelf])

    def read_table(self, table: str) -> pa.Table:
        """Return what is shown of a table of the store."""
        return self._tables[table].table

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def expect_traces(self, root_parent_ids: Mapping[str, str]) -> None:
        """Expect spans of these traces; of each, by its id, the id of the span that is the parent of its roots."""
        more = {bytes.fromhex(trace_id): int(span_id, 16) for trace_id, span_id in root_parent_ids.items()}
        self._root_parent_ids = {
            **self._root_parent_ids,
            **more,
        }  # whoever takes spans just now goes on with the others

    def add_arrived(self, arrived: ArrivedSpans) -> None:
        """Take those spans that are expected."""
        ours = pc.is_in(
            arrived.spans["trace_id"].combine_chunks().storage, pa.array(self._root_parent_ids, pa.binary(16))
        )
        taken = arrived.spans if pc.all(ours).as_py() else arrived.spans.filter(ours)
        with self._lock:
            if self.is_complete:
                self._arrived.append(taken)
                self.is_complete = sum(map(len, self._arrived)) <= _MAX_SPANS

    def publish(self) -> bool:
        """Show what has arrived. False: that takes the store from now on, as it is much, or tied to other traces."""
        with self._lock:
            if self._arrived:
                self._arrived = [pa.concat_tables(self._arrived).combine_chunks()]
            arrived = tuple(self._arrived)
        if self.is_complete and arrived and not self._publish_spans(*arrived):
            self.is_complete = False
        return self.is_complete

    def _publish_spans(self, spans: pa.Table) -> bool:
        fresh = self._make_span_batch(spans)
        doubles = fresh.find_duplicates()
        if doubles:
            fresh = fresh.drop_rows(doubles)
            spans = spans.filter(pc.is_in(spans["span_key"], fresh.column("span_key")))
        if fresh.has_entry_links.any():
            return False
        found = {"spans": [spans]}
        for table, rows in derive_rows(fresh, NO_ENTRY_LINKS, self._rules, self._store.services):
            found.setdefault(table, []).append(rows)
        for table, shelf in self._tables.items():
            shelf.replace(found[table])
        return True

    def _make_span_batch(self, spans: pa.Table) -> SpanBatch:
        """Read the spans as ``sql/new_spans.sql`` reads those of the store."""
        trace_ids = spans["trace_id"].combine_chunks()
        attributes = spans["attributes"].combine_chunks()
        roots = pa.array(self._root_parent_ids.values(), pa.uint64()).take(
            pc.index_in(trace_ids.storage, pa.array(self._root_parent_ids, pa.binary(16)))
        )
        as_they_are = ("span_key", "trace_id", "span_id", "parent_id", "service", "name", "kind", "start_ns", "end_ns",
                       "status", "resource_key")  # fmt: skip
        columns = {
            **{name: spans[name] for name in as_they_are},
            "dirty": pa.repeat(_TRUE, len(spans)),
            "keys": attributes.field("keys"),
            "texts": attributes.field("texts"),
            "asked_by_us": pc.equal(spans["parent_id"], roots).fill_null(False),
            "links": pc.greater(pc.list_value_length(spans["links"]), _ZERO),
        }
        return SpanBatch(add_extracted_attributes(pa.table(columns)))


class _ReplaceableTable:
    """Where DuckDB finds, each time that it is asked anew, the table that was put there last."""

    def __init__(self, empty: pa.Table) -> None:
        self._schema = empty.schema
        self._parts = [empty]
        self._table: pa.Table | None = empty

    def replace(self, parts: list[pa.Table]) -> None:
        """Put a table there, in parts."""
        self._parts, self._table = parts, None

    @property
    def table(self) -> pa.Table:
        """What is there, with the columns of the store's table; few of the tables are ever asked for."""
        if self._table is None:
            parts = [part.select(self._schema.names).cast(self._schema) for part in self._parts]
            self._table = pa.concat_tables(parts)
        return self._table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Hand the table out (the Arrow PyCapsule interface)."""
        return self.table.__arrow_c_stream__(requested_schema)
