"""The spans that are to be derived, as columns, and how they are found by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector import semconv
from spanproof.collector.facts import Answer, Facts, convert, read_answer

if TYPE_CHECKING:
    import duckdb

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

NOWHERE = -1  # the row of a span that is not here


@dataclass(frozen=True)
class Fresh:
    """Spans of whole traces. `table` has a row for each, with the columns of ``sql/fresh.sql`` and of `_add_facts`.

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
        return _as_ints(self.column("span_key"))

    @cached_property
    def kinds(self) -> Ints:
        """Return OTLP's span kinds; attempts of gRPC are CLIENT."""
        return _as_ints(self.column("kind"))

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
        return Links(_as_ints(rows), targets)

    def are_of(self, services: frozenset[str]) -> Bools:
        """Tell which spans are of one of these services."""
        if not services:
            return np.zeros(len(self), np.bool_)
        return as_bools(pc.is_in(self.column("service"), pa.array(sorted(services))))


class Ids:
    """Finds the rows of spans by trace and span id."""

    def __init__(self, trace_ids: pa.Array, span_ids: pa.Array) -> None:
        self._trace_ids = trace_ids.storage.dictionary_encode()
        self._span_ids = span_ids.dictionary_encode()
        self.traces = _as_ints(self._trace_ids.indices)
        self._known = pa.array(_join(self.traces, self._span_ids.indices.to_numpy()))
        self.first = _as_ints(pc.index_in(self._known, self._known))

    @property
    def trace_ids(self) -> pa.Array:
        """Return the id of each trace, in the order of their numbers."""
        return pa.ExtensionArray.from_storage(pa.uuid(), self._trace_ids.dictionary)

    @cached_property
    def shared(self) -> Mapping[int, list[int]]:
        """Return, by the first row with them, all rows that share their ids with others."""
        others = np.flatnonzero(self.first != np.arange(len(self.first)))
        found: dict[int, list[int]] = {}
        for first, other in zip(self.first[others].tolist(), others.tolist(), strict=True):
            found.setdefault(first, [first]).append(other)
        return found

    def find(self, traces: Ints, span_ids: pa.Array) -> Ints:
        """Return the first row with each trace (by number) and span id."""
        numbers = pc.index_in(span_ids, self._span_ids.dictionary)
        wanted = pa.array(_join(traces, numbers.fill_null(0).to_numpy()), mask=as_bools(numbers.is_null()))
        rows = pc.index_in(wanted, self._known, skip_nulls=True)
        return _as_ints(rows)

    def find_all(self, trace_ids: pa.Array, span_ids: pa.Array) -> list[list[int]]:
        """Return all rows with each trace and span id."""
        numbers = _as_ints(pc.index_in(trace_ids.storage, self._trace_ids.dictionary))
        firsts = self.find(numbers, span_ids)
        return [[] if first == NOWHERE else self.shared.get(first, [first]) for first in firsts.tolist()]


@dataclass(frozen=True, slots=True)
class Links:
    """What entry spans link to: which span, and the rows of those linked to."""

    rows: Ints
    targets: list[list[int]]


def read_fresh(connection: duckdb.DuckDBPyConnection, first: int, last: int) -> Fresh:
    """Read the spans of the traces in the temporary table ``around``, whose keys are in this range."""
    return Fresh(_add_facts(fetch(connection, _query(), {"first": first, "last": last})))


def _add_facts(spans: pa.Table) -> pa.Table:
    facts = Facts(whole(spans["keys"]), whole(spans["texts"]))
    kinds = whole(spans["kind"])
    # gRPC's own instrumentation has a span for each attempt, of no certain kind; each is an exit span (gRFC A66, A72)
    rpc_attempt = pc.and_(pc.starts_with(whole(spans["name"]), "Attempt."), pa.array(facts.has("attempts_before")))
    rpc_status = facts.read("rpc_status")
    added = {
        "kind_sent": kinds,
        "kind": pc.if_else(rpc_attempt, pa.scalar(semconv.SPAN_KINDS["client"], kinds.type), kinds),
        "rpc_attempt": rpc_attempt,
        "answer": convert(facts.read("http_status"), read_answer, pa.uint8()),
        "rpc_failed": pc.if_else(rpc_status.is_valid(), pc.invert(pc.is_in(rpc_status, pa.array(["0", "OK"]))), None),
        "peer": pc.coalesce(facts.read("peer_name"), facts.read("db_system"), facts.read("messaging_system")),
        "server_address": facts.read("server_address"),
        "server_port": facts.read("server_port"),
        "counter": pc.coalesce(facts.read_whole("resend_count"), facts.read_whole("attempts_before")),
        "deliveries": facts.read_whole("deliveries"),
        "says_why": facts.has("error_type"),
        "is_db": facts.has("db_system"),
        "is_messaging": facts.has("messaging_system"),
        "is_rpc": facts.has("rpc_system", "rpc_service"),
        "is_http": facts.has("http_method", "url", "http_status"),
    }
    return pa.table({**dict(zip(spans.column_names, spans.columns, strict=True)), **added})


def fetch(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
    """Return what a query finds, each column in one piece."""
    found = connection.sql(sql, params=parameters).to_arrow_table().combine_chunks()
    for place, column in enumerate(found.schema):
        if (
            column.type == pa.bool8()
        ):  # a byte each, so DuckDB need not pack them; nothing of Arrow's computes with these
            found = found.set_column(place, column.name, found[place].cast(pa.bool_()))
    return found


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as the one piece that it is in, without copying it."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def failed(status: pa.Array, answer: pa.Array, rpc_failed: pa.Array) -> Bools:
    """Tell what failed: by its status, by HTTP's, or by that of an RPC."""
    by_http = pc.equal(answer, Answer.FAILED)
    return as_bools(pc.equal(status, semconv.STATUS_CODES["error"])) | as_bools(by_http) | as_bools(rpc_failed)


def worth_retrying(error: Bools, says_why: Bools, answer: pa.Array) -> Bools:
    """Tell what went wrong in a way that is worth another try."""
    wrong = error | says_why | as_bools(pc.equal(answer, Answer.TRY_AGAIN))
    return wrong & ~as_bools(pc.equal(answer, Answer.TRY_OTHERWISE))


def as_bools(values: pa.Array) -> Bools:
    """Return truths as numpy has them; what is unknown is not so."""
    found: Bools = values.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def _join(traces: Ints, spans: npt.NDArray[np.integer]) -> Ints:
    """Make one number of two that have 32 bits each."""
    return traces << 32 | spans


def _number(values: pa.Array) -> Ints:
    return _as_ints(values.dictionary_encode().indices)


def _as_ints(values: pa.Array) -> Ints:
    found: Ints = values.fill_null(NOWHERE).to_numpy().astype(np.int64, copy=False)
    return found


@cache
def _query() -> str:
    return resources.files("spanproof.collector").joinpath("sql", "fresh.sql").read_text(encoding="utf-8")
