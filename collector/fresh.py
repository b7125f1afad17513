"""The spans that are to be derived, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector import semconv
from spanproof.collector.columns import NOWHERE, Bools, Ints, as_bools, as_ints, whole
from spanproof.collector.facts import Answer
from spanproof.collector.span_ids import Ids, Links

# Typed: of a plain number, Arrow finds out each time what it is, at ten times the cost of comparing a few with it.
_ERROR = pa.scalar(semconv.STATUS_CODES["error"], pa.int32())
_FAILED, _TRY_AGAIN, _TRY_OTHERWISE = (
    pa.scalar(answer, pa.uint8()) for answer in (Answer.FAILED, Answer.TRY_AGAIN, Answer.TRY_OTHERWISE)
)


@dataclass(frozen=True)
class Fresh:
    """Spans of whole traces. `table` has a row for each, with the columns that `around.read_spans` gives it.

    Places in it are called rows; a missing one is `NOWHERE`.
    """

    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    def column(self, name: str) -> pa.Array:
        """Return a column."""
        return whole(self.table[name])

    @cached_property
    def keys(self) -> Ints:
        """Return the keys of the spans."""
        return as_ints(self.column("span_key"))

    @cached_property
    def kinds(self) -> Ints:
        """Return OTLP's span kinds; attempts of gRPC are CLIENT."""
        return as_ints(self.column("kind"))

    @cached_property
    def services(self) -> Ints:
        """Return a number for the service of each span."""
        return _number(self.column("service"))

    @cached_property
    def dirty(self) -> Bools:
        """Tell which spans are of traces that are to be derived; the others are here for the links to them."""
        return as_bools(self.column("dirty"))

    @cached_property
    def linking(self) -> Bools:
        """Tell which spans are of requests and messages that came by links."""
        roots = as_bools(self.column("parent_id").is_null())
        kinds = semconv.SPAN_KINDS
        entries = (self.kinds == kinds["consumer"]) | ((self.kinds == kinds["server"]) & roots)
        linking: Bools = as_bools(self.column("links")) & entries
        return linking

    @cached_property
    def errors(self) -> Bools:
        """Tell which spans say of themselves that they failed."""
        return failed(self.column("status"), self.column("answer"), self.column("rpc_failed"))

    @cached_property
    def ids(self) -> Ids:
        """Return what finds spans by their ids."""
        return Ids(self.column("trace_id"), self.column("span_id"))

    @cached_property
    def parents_named(self) -> Ints:
        """Return the first row with the id that each span names as its parent's, in its trace."""
        return self.ids.find(self.ids.traces, self.column("parent_id"))

    def take_keys(self, rows: Ints) -> pa.Array:
        """Return the keys of the spans in these rows."""
        return self.column("span_key").take(pa.array(rows, mask=rows == NOWHERE))

    def find_doubles(self) -> list[int]:
        """Find the spans that have ids, kind and service in common with another, which ends later or came first."""
        kinds, ends = self.column("kind_sent").to_numpy(), self.column("end_ns").to_numpy()
        doubles = []
        for rows in self.ids.shared.values():
            best: dict[tuple[int, int], int] = {}
            for row in sorted(rows, key=lambda row: (-ends[row], self.keys[row])):
                if best.setdefault((kinds[row], self.services[row]), row) != row:
                    doubles.append(row)
        return doubles

    def without(self, rows: list[int]) -> Fresh:
        """Return all spans but these."""
        kept = np.ones(len(self), np.bool_)
        kept[rows] = False
        return Fresh(self.table.filter(pa.array(kept)).combine_chunks())

    def find_links(self, table: pa.Table) -> Links:
        """Find the spans of rows of ``entry_links``, where both they and what they link to are here."""
        rows = pc.index_in(whole(table["span_key"]), self.column("span_key"))
        targets = self.ids.find_all(whole(table["linked_trace_id"]), whole(table["linked_span_id"]))
        return Links(as_ints(rows), targets)

    def are_of(self, services: frozenset[str]) -> Bools:
        """Tell which spans are of one of these services."""
        if not services:
            return np.zeros(len(self), np.bool_)
        return as_bools(pc.is_in(self.column("service"), pa.array(sorted(services))))


def failed(status: pa.Array, answer: pa.Array, rpc_failed: pa.Array) -> Bools:
    """Tell what failed: by its status, by HTTP's, or by that of an RPC."""
    by_http = pc.equal(answer, _FAILED)
    return as_bools(pc.equal(status, _ERROR)) | as_bools(by_http) | as_bools(rpc_failed)


def worth_retrying(error: Bools, says_why: Bools, answer: pa.Array) -> Bools:
    """Tell what went wrong in a way that is worth another try."""
    wrong = error | says_why | as_bools(pc.equal(answer, _TRY_AGAIN))
    return wrong & ~as_bools(pc.equal(answer, _TRY_OTHERWISE))


def _number(values: pa.Array) -> Ints:
    return as_ints(values.dictionary_encode().indices)
