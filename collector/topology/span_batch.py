"""Batch of spans to derive, as columns."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import (
    MISSING_ROW,
    BoolArray,
    IntArray,
    get_single_chunk,
    to_bool_array,
    to_int_array,
)
from spanproof.collector.topology.span_index import EntryLinks, SpanIndex


class SpanBatch(Struct, frozen=True, dict=True):
    """Spans of whole traces; `table` has a row for each, with the columns of `affected_traces.read_span_batch`.

    Positions in the table are called rows; a missing one is `MISSING_ROW`.
    """

    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> pa.Array:
        """Return a column."""
        return get_single_chunk(self.table[name])

    @cached_property
    def keys(self) -> IntArray:
        """Return the keys of the spans."""
        return to_int_array(self.column("span_key"))

    @cached_property
    def kinds(self) -> IntArray:
        """Return OTLP's span kinds; the spans of gRPC attempts are CLIENT."""
        return to_int_array(self.column("kind"))

    @cached_property
    def services(self) -> IntArray:
        """Return a number for the service of each span."""
        return _encode_as_numbers(self.column("service"))

    @cached_property
    def dirty(self) -> BoolArray:
        """Return which spans belong to traces to derive; the others are present only as targets of links."""
        return to_bool_array(self.column("dirty"))

    @cached_property
    def has_entry_links(self) -> BoolArray:
        """Return which spans are entry spans of requests and messages that arrived by links."""
        roots = to_bool_array(self.column("parent_id").is_null())
        kinds = semconv.SPAN_KINDS
        entries = (self.kinds == kinds["consumer"]) | ((self.kinds == kinds["server"]) & roots)
        linked_entries: BoolArray = to_bool_array(self.column("has_links")) & entries
        return linked_entries

    @cached_property
    def is_unlinked(self) -> BoolArray:
        """Return which spans neither a parent nor a link ties to another span."""
        is_unlinked: BoolArray = to_bool_array(self.column("parent_id").is_null())
        return is_unlinked & ~to_bool_array(self.column("has_links"))

    @cached_property
    def index(self) -> SpanIndex:
        """Return the index of the spans by their ids."""
        return SpanIndex(self.column("trace_id"), self.column("span_id"))

    @cached_property
    def declared_parents(self) -> IntArray:
        """Return the first row whose span id is the span's parent id, in the same trace."""
        return self.index.find_first(self.index.trace_indices, self.column("parent_id"))

    def take_keys(self, rows: IntArray) -> pa.Array:
        """Return the keys of the spans in these rows."""
        return self.column("span_key").take(pa.array(rows, mask=rows == MISSING_ROW))

    def find_duplicates(self) -> list[int]:
        """Return the rows of duplicate spans.

        A span is a duplicate if another one with the same ids, kind and service ends later or came first.
        """
        kinds, ends = self.column("exported_kind").to_numpy(), self.column("end_ns").fill_null(0).to_numpy()
        duplicates = []
        for rows in self.index.rows_with_shared_ids.values():
            best: dict[tuple[int, int], int] = {}
            for row in sorted(rows, key=lambda row: (-ends[row], self.keys[row])):
                if best.setdefault((kinds[row], self.services[row]), row) != row:
                    duplicates.append(row)
        return duplicates

    def drop_rows(self, rows: list[int]) -> SpanBatch:
        """Return a batch without these rows."""
        kept = np.ones(len(self), np.bool_)
        kept[rows] = False
        return SpanBatch(self.table.filter(pa.array(kept)).combine_chunks())

    def resolve_links(self, table: pa.Table) -> EntryLinks:
        """Resolve rows of ``entry_links`` to rows of this batch; drop rows whose span or target is not in it."""
        rows = pc.index_in(get_single_chunk(table["span_key"]), self.column("span_key"))
        targets = self.index.find_all(
            get_single_chunk(table["linked_trace_id"]), get_single_chunk(table["linked_span_id"])
        )
        return EntryLinks(to_int_array(rows), targets)

    def is_of_services(self, services: Collection[str]) -> BoolArray:
        """Return which spans belong to one of these services."""
        if not services:
            return np.zeros(len(self), np.bool_)
        return to_bool_array(pc.is_in(self.column("service"), pa.array(sorted(services))))


def _encode_as_numbers(values: pa.Array) -> IntArray:
    return to_int_array(values.dictionary_encode().indices)
