"""Attempts: pairs the exit span of a caller with the entry span of its callee."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.retryable_failures import is_failed, is_retryable
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.calls.span_index import EntryLinks
from spanproof.collector.calls.topology import CONSUMER, PRODUCER, SERVER, Topology, is_exit_kind
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array

# The shapes of an attempt: a client span with its server span, a client span alone, a server span alone, a message.
PAIRED, UNPAIRED, BARE, MESSAGE = "paired", "unpaired", "bare", "message"
_SHAPES = (PAIRED, UNPAIRED, BARE, MESSAGE)
_PROTOCOLS = ("db", "messaging", "rpc", "http", "other")
# typed scalars, as in span_batch.py
_ONE, _PRODUCER = (pa.scalar(value, pa.int32()) for value in (1, PRODUCER))
_FIRST_INDEX = pa.scalar(0, pa.int64())
_COLON, _EMPTY_TEXT = (pa.scalar(value, pa.string()) for value in (":", ""))


@dataclass(frozen=True, slots=True)
class SpanPairs:
    """Pairs of caller and callee by span rows (`MISSING_ROW` for a callee without a span), with their shapes."""

    caller_rows: IntArray
    callee_rows: IntArray
    shape_indices: IntArray  # indices into `_SHAPES`


def find_continuations(spans: SpanBatch, topology: Topology, links: EntryLinks) -> list[tuple[int, int]]:
    """Return requests that a service continues in a new trace, as pairs: new entry span, original entry span."""
    continuations = set()
    for row, targets in zip(links.rows.tolist(), links.targets, strict=True):
        for target in targets if spans.kinds[row] == SERVER else ():
            entry = int(topology.entries[target])
            if spans.services[target] == spans.services[row] and entry not in (MISSING_ROW, row):
                continuations.add((row, entry))
    return sorted(continuations)


def pair_spans(spans: SpanBatch, topology: Topology, links: EntryLinks, proxies: frozenset[str]) -> SpanPairs:
    """Return the pairs of caller and callee spans."""
    kinds, parents = spans.kinds, topology.parents
    are_proxies = spans.is_of_services(proxies)
    has_caller = (parents != MISSING_ROW) & (is_exit_kind(kinds[parents]) | topology.has_other_service_parent)
    callees = np.flatnonzero(topology.is_entry & has_caller & ~are_proxies & ~are_proxies[parents])
    callers = parents[callees]
    messages = (kinds[callees] == CONSUMER) | (kinds[callers] == PRODUCER)
    shapes = np.select([~is_exit_kind(kinds[callers]), messages], [_SHAPES.index(BARE), _SHAPES.index(MESSAGE)], 0)
    linked_pairs = _pair_by_links(
        spans, links, set(zip(callers[messages].tolist(), callees[messages].tolist(), strict=True))
    )
    callers = np.concatenate([callers, linked_pairs[:, 0]])
    callees = np.concatenate([callees, linked_pairs[:, 1]])
    shapes = np.concatenate([shapes, np.full(len(linked_pairs), _SHAPES.index(MESSAGE))])
    unpaired = is_exit_kind(kinds) & ~are_proxies
    unpaired[callers[shapes != _SHAPES.index(BARE)]] = False
    # in gRPC, the spans of the attempts are the calls, not the span above them
    attempt_parents = parents[to_bool_array(spans.column("rpc_attempt"))]
    unpaired[attempt_parents[attempt_parents != MISSING_ROW]] = False
    unpaired_rows = np.flatnonzero(unpaired)
    return SpanPairs(
        np.concatenate([callers, unpaired_rows]),
        np.concatenate([callees, np.full_like(unpaired_rows, MISSING_ROW)]),
        np.concatenate([shapes, np.full_like(unpaired_rows, _SHAPES.index(UNPAIRED))]),
    )


def _pair_by_links(spans: SpanBatch, links: EntryLinks, known: set[tuple[int, int]]) -> IntArray:
    """Pair consumers with the producers that they link to, except pairs that are in `known`."""
    pairs = {
        (target, row)
        for row, targets in zip(links.rows.tolist(), links.targets, strict=True)
        for target in (targets if spans.kinds[row] == CONSUMER else ())
        if spans.kinds[target] == PRODUCER
    }
    return np.array(sorted(pairs - known), np.int64).reshape(-1, 2)


def build_attempts(spans: SpanBatch, topology: Topology, pairs: SpanPairs, services: frozenset[str]) -> pa.Table:
    """Return the columns of ``attempts`` that need no logical call, and some more.

    `services` are all known services. The first label of a host name is the peer if it is the name of a service.
    """
    caller, server = _AttemptSide(spans, topology, pairs.caller_rows), _AttemptSide(spans, topology, pairs.callee_rows)
    bare, message = (pa.array(pairs.shape_indices == _SHAPES.index(shape)) for shape in (BARE, MESSAGE))
    paired = pa.array(pairs.shape_indices == _SHAPES.index(PAIRED))
    # a bare attempt has no exit span
    exit_ = _AttemptSide(spans, topology, np.where(bare, MISSING_ROW, pairs.caller_rows))

    def read_first(column: str) -> pa.Array:
        return pc.coalesce(exit_.read(column), server.read(column))

    def is_any(column: str) -> BoolArray:
        return to_bool_array(exit_.read(column)) | to_bool_array(server.read(column))

    error = is_failed(read_first("status"), read_first("http_outcome"), read_first("rpc_failed"))
    # a message also fails if its consumer fails
    error |= to_bool_array(message) & server.errors
    start_ns, server_start_ns = read_first("start_ns"), server.read("start_ns")
    end_ns = pc.if_else(message, server.read("end_ns"), read_first("end_ns"))
    redeliveries = pc.subtract(server.read("deliveries"), _ONE)
    protocol = np.select(
        [is_any("is_db"), is_any("is_messaging") | to_bool_array(message), is_any("is_rpc"), is_any("is_http")],
        range(len(_PROTOCOLS) - 1),
        len(_PROTOCOLS) - 1,
    )
    return pa.table(
        {
            "trace_id": caller.read("trace_id"),
            "dirty": caller.read("dirty"),
            "attempt_key": _hash_span_pairs(caller, server),
            "shape": _make_dictionary_array(pairs.shape_indices, _SHAPES),
            "caller": caller.read("service"),
            "callee": _resolve_callee(caller, server, services),
            "operation": pc.coalesce(server.read("name"), exit_.read("name")),
            "address": _build_address(exit_),
            "protocol": _make_dictionary_array(protocol, _PROTOCOLS),
            # a message without a consumer is asynchronous, too
            "async": pc.or_(message, pc.equal(caller.read("kind"), _PRODUCER)),
            "parent_id": pc.if_else(bare, caller.read("span_id"), caller.read("parent_id")),
            "caller_entry": caller.entries,
            "callee_entry": server.entries,
            "client_key": exit_.keys,
            "server_key": server.keys,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "network_ns": _null_unless(paired, pc.subtract(exit_.durations, server.durations)),
            "lag_ns": _null_unless(message, pc.subtract(server_start_ns, exit_.read("end_ns"))),
            "status": read_first("status"),
            "error": error,
            "retryable": is_retryable(error, is_any("has_error_type"), read_first("http_outcome")),
            "http_outcome": read_first("http_outcome"),
            "server_start_ns": server_start_ns,
            "server_end_ns": server.read("end_ns"),
            "server_status": server.read("status"),
            "server_error": server.errors,
            "server_retryable": is_retryable(
                server.errors, to_bool_array(server.read("has_error_type")), server.read("http_outcome")
            ),
            "resend_count": pc.coalesce(exit_.read("resend_count"), _null_unless(message, redeliveries)),
            "definite": caller.definite & server.definite,
        }
    )


class _AttemptSide:
    """The spans on one side of the attempts, as columns; null where there is no span."""

    def __init__(self, spans: SpanBatch, topology: Topology, rows: IntArray) -> None:
        self._spans = spans
        self._rows = pa.array(rows, mask=rows == MISSING_ROW)
        self._columns: dict[str, pa.Array] = {}
        self.keys = self.read("span_key")
        self.errors = to_bool_array(self._take(pa.array(spans.errors)))
        self.definite = to_bool_array(self._take(pa.array(topology.is_definite)))
        self.entries = spans.take_keys(np.where(rows == MISSING_ROW, MISSING_ROW, topology.entries[rows]))

    def read(self, column: str) -> pa.Array:
        """Return a column."""
        if column not in self._columns:
            self._columns[column] = self._take(self._spans.column(column))
        return self._columns[column]

    @property
    def durations(self) -> pa.Array:
        """The durations of the spans, in nanoseconds."""
        return pc.subtract(self.read("end_ns"), self.read("start_ns"))

    def _take(self, values: pa.Array) -> pa.Array:
        return values.take(self._rows)


def _resolve_callee(caller: _AttemptSide, server: _AttemptSide, services: frozenset[str]) -> pa.Array:
    callee = pc.coalesce(server.read("service"), caller.read("peer"))
    host = _null_unless(callee.is_null(), caller.read("server_address"))
    if host.null_count < len(host):
        label = pc.list_element(pc.split_pattern(host, ".", max_splits=1), _FIRST_INDEX)
        known = pc.is_in(label, pa.array(services, pa.string()))
        callee = pc.coalesce(callee, _null_unless(known, label), _null_unless(pc.not_equal(host, _EMPTY_TEXT), host))
    return callee.fill_null("unknown")


def _build_address(exit_: _AttemptSide) -> pa.Array:
    host, port = exit_.read("server_address"), exit_.read("server_port")
    address = pc.coalesce(pc.binary_join_element_wise(host, port, _COLON), host, port)
    return _null_unless(pc.not_equal(address, _EMPTY_TEXT), address)


def _make_dictionary_array(indices: IntArray, texts: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts, pa.string()))


def _null_unless(condition: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def _hash_span_pairs(caller: _AttemptSide, server: _AttemptSide) -> IntArray:
    """Return a hash of each pair of spans: the finalizer of SplitMix64 (Steele et al., 2014), unsigned 63 bits."""
    first, second = (keys.fill_null(0).to_numpy().astype(np.uint64) for keys in (caller.keys, server.keys))
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    attempt_keys: IntArray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return attempt_keys
