"""The spans that are to be derived, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.extracted_attributes import HttpOutcome
from spanproof.collector.calls.span_index import EntryLinks, SpanIndex
from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import (
    MISSING_ROW,
    BoolArray,
    IntArray,
    get_single_chunk,
    to_bool_array,
    to_int_array,
)

# Typed: of a plain number, Arrow finds out each time what it is, at ten times the cost of comparing a few with it.
_ERROR = pa.scalar(semconv.STATUS_CODES["error"], pa.int32())
_FAILED, _TRY_AGAIN, _TRY_OTHERWISE = (
    pa.scalar(answer, pa.uint8())
    for answer in (HttpOutcome.SERVER_ERROR, HttpOutcome.RETRYABLE, HttpOutcome.REDIRECT_OR_CHALLENGE)
)


@dataclass(frozen=True)
class SpanBatch:
    """Spans of whole traces. `table` has a row for each, with the columns that `around.read_spans` gives it.

    Places in it are called rows; a missing one is `NOWHERE`.
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
        """Return OTLP's span kinds; attempts of gRPC are CLIENT."""
        return to_int_array(self.column("kind"))

    @cached_property
    def services(self) -> IntArray:
        """Return a number for the service of each span."""
        return _encode_as_numbers(self.column("service"))

    @cached_property
    def dirty(self) -> BoolArray:
        """Tell which spans are of traces that are to be derived; the others are here for the links to them."""
        return to_bool_array(self.column("dirty"))

    @cached_property
    def has_entry_links(self) -> BoolArray:
        """Tell which spans are of requests and messages that came by links."""
        roots = to_bool_array(self.column("parent_id").is_null())
        kinds = semconv.SPAN_KINDS
        entries = (self.kinds == kinds["consumer"]) | ((self.kinds == kinds["server"]) & roots)
        linking: BoolArray = to_bool_array(self.column("links")) & entries
        return linking

    @cached_property
    def errors(self) -> BoolArray:
        """Tell which spans say of themselves that they failed."""
        return is_failed(self.column("status"), self.column("answer"), self.column("rpc_failed"))

    @cached_property
    def index(self) -> SpanIndex:
        """Return what finds spans by their ids."""
        return SpanIndex(self.column("trace_id"), self.column("span_id"))

    @cached_property
    def declared_parents(self) -> IntArray:
        """Return the first row with the id that each span names as its parent's, in its trace."""
        return self.index.find_first(self.index.trace_indices, self.column("parent_id"))

    def take_keys(self, rows: IntArray) -> pa.Array:
        """Return the keys of the spans in these rows."""
        return self.column("span_key").take(pa.array(rows, mask=rows == MISSING_ROW))

    def find_duplicates(self) -> list[int]:
        """Find the spans that have ids, kind and service in common with another, which ends later or came first."""
        kinds, ends = self.column("kind_sent").to_numpy(), self.column("end_ns").to_numpy()
        doubles = []
        for rows in self.index.rows_with_shared_ids.values():
            best: dict[tuple[int, int], int] = {}
            for row in sorted(rows, key=lambda row: (-ends[row], self.keys[row])):
                if best.setdefault((kinds[row], self.services[row]), row) != row:
                    doubles.append(row)
        return doubles

    def drop_rows(self, rows: list[int]) -> SpanBatch:
        """Return all spans but these."""
        kept = np.ones(len(self), np.bool_)
        kept[rows] = False
        return SpanBatch(self.table.filter(pa.array(kept)).combine_chunks())

    def resolve_links(self, table: pa.Table) -> EntryLinks:
        """Find the spans of rows of ``entry_links``, where both they and what they link to are here."""
        rows = pc.index_in(get_single_chunk(table["span_key"]), self.column("span_key"))
        targets = self.index.find_all(
            get_single_chunk(table["linked_trace_id"]), get_single_chunk(table["linked_span_id"])
        )
        return EntryLinks(to_int_array(rows), targets)

    def is_of_services(self, services: frozenset[str]) -> BoolArray:
        """Tell which spans are of one of these services."""
        if not services:
            return np.zeros(len(self), np.bool_)
        return to_bool_array(pc.is_in(self.column("service"), pa.array(sorted(services))))


def is_failed(status: pa.Array, http_outcome: pa.Array, rpc_failed: pa.Array) -> BoolArray:
    """Tell what failed: by its status, by HTTP's, or by that of an RPC."""
    by_http = pc.equal(http_outcome, _FAILED)
    return to_bool_array(pc.equal(status, _ERROR)) | to_bool_array(by_http) | to_bool_array(rpc_failed)


def is_retryable(error: BoolArray, has_error_type: BoolArray, http_outcome: pa.Array) -> BoolArray:
    """Tell what went wrong in a way that is worth another try."""
    wrong = error | has_error_type | to_bool_array(pc.equal(http_outcome, _TRY_AGAIN))
    return wrong & ~to_bool_array(pc.equal(http_outcome, _TRY_OTHERWISE))


def _encode_as_numbers(values: pa.Array) -> IntArray:
    return to_int_array(values.dictionary_encode().indices)
