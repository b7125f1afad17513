"""Traces as they arrive: what is derived of them, in memory, so that nobody need wait until the store has it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.around import add_facts
from spanproof.collector.calls import work_out
from spanproof.collector.fresh import Fresh
from spanproof.collector.rules import Rules
from spanproof.collector.span_ids import NO_LINKS

if TYPE_CHECKING:
    from spanproof.collector.store import Arrived, Store

# What covers which table of the store; paths go through `hops`, which without links are the exchanges.
_COVERED: Final = {"spans": "spans", "traces": "traces", "tree": "tree", "exchanges": "exchanges", "calls": "calls",
                   "hops": "exchanges"}  # fmt: skip
# Of traces with more spans than these, deriving all anew would take longer than the store does for what is new.
_MOST_SPANS: Final = 2000
_TRUE, _ZERO = pa.scalar(True, pa.bool_()), pa.scalar(0, pa.int32())


class LiveTraces:
    """Traces that we began, as their spans arrive.

    To whoever asks by its `connection`, the store holds nothing but the spans that `show` was told to show, and what is
    derived of these; origins, rules and all else are those of the store. `take` may be called in another thread.
    """

    def __init__(self, store: Store) -> None:
        self.connection = store.cursor()
        self._store = store
        self._roots: dict[bytes, int] = {}  # of each trace, the span id of our own span, which nobody exports
        self._arrived: list[pa.Table] = []
        self._lock = threading.Lock()
        self.whole = True  # all that is expected can be shown
        ((rules,),) = self.connection.execute("SELECT rules FROM rules").fetchall()
        self._rules = Rules.read(rules)
        self._shelves = {table: _Shelf(store.read_empty(table)) for table in dict.fromkeys(_COVERED.values())}
        for covered, shelf in _COVERED.items():
            self.connection.register(covered, self._shelves[shelf])

    def read(self, table: str) -> pa.Table:
        """Return what is shown of a table of the store."""
        return self._shelves[table].table

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def expect(self, roots: Mapping[str, str]) -> None:
        """Expect spans of these traces; of each, by its id, the id of the span that is the parent of its roots."""
        more = {bytes.fromhex(trace_id): int(span_id, 16) for trace_id, span_id in roots.items()}
        self._roots = {**self._roots, **more}  # whoever takes spans just now goes on with the others

    def take(self, arrived: Arrived) -> None:
        """Take those spans that are expected."""
        ours = pc.is_in(arrived.spans["trace_id"].combine_chunks().storage, pa.array(self._roots, pa.binary(16)))
        taken = arrived.spans if pc.all(ours).as_py() else arrived.spans.filter(ours)
        with self._lock:
            if self.whole:
                self._arrived.append(taken)
                self.whole = sum(map(len, self._arrived)) <= _MOST_SPANS

    def show(self) -> bool:
        """Show what has arrived. False: that takes the store from now on, as it is much, or tied to other traces."""
        with self._lock:
            if self._arrived:
                self._arrived = [pa.concat_tables(self._arrived).combine_chunks()]
            arrived = tuple(self._arrived)
        if self.whole and arrived and not self._show(*arrived):
            self.whole = False
        return self.whole

    def _show(self, spans: pa.Table) -> bool:
        fresh = self._read(spans)
        doubles = fresh.find_doubles()
        if doubles:
            fresh = fresh.without(doubles)
            spans = spans.filter(pc.is_in(spans["span_key"], fresh.column("span_key")))
        if fresh.linking.any():
            return False
        found = {"spans": [spans]}
        for table, rows in work_out(fresh, NO_LINKS, self._rules, self._store.services):
            found.setdefault(table, []).append(rows)
        for table, shelf in self._shelves.items():
            shelf.put(found[table])
        return True

    def _read(self, spans: pa.Table) -> Fresh:
        """Read the spans as ``sql/fresh.sql`` reads those of the store."""
        trace_ids = spans["trace_id"].combine_chunks()
        attributes = spans["attributes"].combine_chunks()
        roots = pa.array(self._roots.values(), pa.uint64()).take(
            pc.index_in(trace_ids.storage, pa.array(self._roots, pa.binary(16)))
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
        return Fresh(add_facts(pa.table(columns)))


class _Shelf:
    """Where DuckDB finds, each time that it is asked anew, the table that was put there last."""

    def __init__(self, empty: pa.Table) -> None:
        self._schema = empty.schema
        self._parts = [empty]
        self._table: pa.Table | None = empty

    def put(self, parts: list[pa.Table]) -> None:
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
