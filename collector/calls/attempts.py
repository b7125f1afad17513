"""Says who asked whom: pairs the exit span of a caller with the entry span of whoever answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.span_batch import SpanBatch, is_failed, is_retryable
from spanproof.collector.calls.span_index import EntryLinks
from spanproof.collector.calls.topology import CONSUMER, PRODUCER, SERVER, Topology, is_exit_kind
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array

# The shapes of an exchange: a client's span with its server's, without one, a server's span alone, a message.
PAIRED, UNPAIRED, BARE, MESSAGE = "paired", "unpaired", "bare", "message"
_SHAPES = (PAIRED, UNPAIRED, BARE, MESSAGE)
_PROTOCOLS = ("db", "messaging", "rpc", "http", "other")
# typed, as in fresh.py
_ONE, _PRODUCER = (pa.scalar(value, pa.int32()) for value in (1, PRODUCER))
_FIRST_INDEX = pa.scalar(0, pa.int64())
_COLON, _EMPTY_TEXT = (pa.scalar(value, pa.string()) for value in (":", ""))


@dataclass(frozen=True, slots=True)
class SpanPairs:
    """Who asked whom, by rows: the span that asked, the one that was asked (or `NOWHERE`), and the shape."""

    caller_rows: IntArray
    callee_rows: IntArray
    shape_indices: IntArray  # places in `_SHAPES`


def find_continuations(spans: SpanBatch, topology: Topology, links: EntryLinks) -> list[tuple[int, int]]:
    """Find requests that a service went on with in a trace of its own: its entry span, and that of the request."""
    found = set()
    for row, targets in zip(links.rows.tolist(), links.targets, strict=True):
        for target in targets if spans.kinds[row] == SERVER else ():
            entry = int(topology.entries[target])
            if spans.services[target] == spans.services[row] and entry not in (MISSING_ROW, row):
                found.add((row, entry))
    return sorted(found)


def pair_spans(spans: SpanBatch, topology: Topology, links: EntryLinks, proxies: frozenset[str]) -> SpanPairs:
    """Find who asked whom."""
    kinds, above = spans.kinds, topology.parents
    are_proxies = spans.is_of_services(proxies)
    by_another = (above != MISSING_ROW) & (is_exit_kind(kinds[above]) | topology.has_other_service_parent)
    asked = np.flatnonzero(topology.is_entry & by_another & ~are_proxies & ~are_proxies[above])
    askers = above[asked]
    messages = (kinds[asked] == CONSUMER) | (kinds[askers] == PRODUCER)
    shapes = np.select([~is_exit_kind(kinds[askers]), messages], [_SHAPES.index(BARE), _SHAPES.index(MESSAGE)], 0)
    by_links = _pair_by_links(spans, links, set(zip(askers[messages].tolist(), asked[messages].tolist(), strict=True)))
    askers = np.concatenate([askers, by_links[:, 0]])
    asked = np.concatenate([asked, by_links[:, 1]])
    shapes = np.concatenate([shapes, np.full(len(by_links), _SHAPES.index(MESSAGE))])
    unanswered = is_exit_kind(kinds) & ~are_proxies
    unanswered[askers[shapes != _SHAPES.index(BARE)]] = False
    # gRPC's attempts are the calls, not the span above them
    above_attempts = above[to_bool_array(spans.column("rpc_attempt"))]
    unanswered[above_attempts[above_attempts != MISSING_ROW]] = False
    alone = np.flatnonzero(unanswered)
    return SpanPairs(
        np.concatenate([askers, alone]),
        np.concatenate([asked, np.full_like(alone, MISSING_ROW)]),
        np.concatenate([shapes, np.full_like(alone, _SHAPES.index(UNPAIRED))]),
    )


def _pair_by_links(spans: SpanBatch, links: EntryLinks, known: set[tuple[int, int]]) -> IntArray:
    """Pair consumers with the producers that they link to, where they are no pair already."""
    found = {
        (target, row)
        for row, targets in zip(links.rows.tolist(), links.targets, strict=True)
        for target in (targets if spans.kinds[row] == CONSUMER else ())
        if spans.kinds[target] == PRODUCER
    }
    return np.array(sorted(found - known), np.int64).reshape(-1, 2)


def build_attempts(spans: SpanBatch, topology: Topology, pairs: SpanPairs, services: frozenset[str]) -> pa.Table:
    """Describe each exchange, in the columns of ``attempts`` that are not about attempts, and some beside.

    `services` are all that are known: a host name's first label counts as the peer if it is one.
    """
    asker, server = _AttemptSide(spans, topology, pairs.caller_rows), _AttemptSide(spans, topology, pairs.callee_rows)
    bare, message = (pa.array(pairs.shape_indices == _SHAPES.index(shape)) for shape in (BARE, MESSAGE))
    paired = pa.array(pairs.shape_indices == _SHAPES.index(PAIRED))
    exit_ = _AttemptSide(spans, topology, np.where(bare, MISSING_ROW, pairs.caller_rows))  # a bare call has none

    def either(column: str) -> pa.Array:
        return pc.coalesce(exit_.read(column), server.read(column))

    def any_says(column: str) -> BoolArray:
        return to_bool_array(exit_.read(column)) | to_bool_array(server.read(column))

    error = is_failed(either("status"), either("answer"), either("rpc_failed"))
    # a message has failed, too, where what took it up did
    error |= to_bool_array(message) & server.errors
    start_ns, server_start_ns = either("start_ns"), server.read("start_ns")
    end_ns = pc.if_else(message, server.read("end_ns"), either("end_ns"))
    delivered = pc.subtract(server.read("deliveries"), _ONE)
    protocol = np.select(
        [any_says("is_db"), any_says("is_messaging") | to_bool_array(message), any_says("is_rpc"), any_says("is_http")],
        range(len(_PROTOCOLS) - 1),
        len(_PROTOCOLS) - 1,
    )
    return pa.table(
        {
            "trace_id": asker.read("trace_id"),
            "dirty": asker.read("dirty"),
            "attempt_key": _hash_span_pairs(asker, server),
            "shape": _make_dictionary_array(pairs.shape_indices, _SHAPES),
            "caller": asker.read("service"),
            "callee": _resolve_callee(asker, server, services),
            "operation": pc.coalesce(server.read("name"), exit_.read("name")),
            "address": _build_address(exit_),
            "protocol": _make_dictionary_array(protocol, _PROTOCOLS),
            # what nobody took up was sent all the same
            "async": pc.or_(message, pc.equal(asker.read("kind"), _PRODUCER)),
            "parent_id": pc.if_else(bare, asker.read("span_id"), asker.read("parent_id")),
            "caller_entry": asker.entries,
            "callee_entry": server.entries,
            "client_key": exit_.keys,
            "server_key": server.keys,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "network_ns": _null_unless(paired, pc.subtract(exit_.durations, server.durations)),
            "lag_ns": _null_unless(message, pc.subtract(server_start_ns, exit_.read("end_ns"))),
            "status": either("status"),
            "error": error,
            "retryable": is_retryable(error, any_says("says_why"), either("answer")),
            "answer": either("answer"),
            "server_start_ns": server_start_ns,
            "server_end_ns": server.read("end_ns"),
            "server_status": server.read("status"),
            "server_error": server.errors,
            "server_retryable": is_retryable(
                server.errors, to_bool_array(server.read("says_why")), server.read("answer")
            ),
            "resend_count": pc.coalesce(exit_.read("counter"), _null_unless(message, delivered)),
            "definite": asker.definite & server.definite,
        }
    )


class _AttemptSide:
    """One side of exchanges: the columns of these rows, without values where there is no span."""

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
        """How long each took, in nanoseconds."""
        return pc.subtract(self.read("end_ns"), self.read("start_ns"))

    def _take(self, values: pa.Array) -> pa.Array:
        return values.take(self._rows)


def _resolve_callee(caller: _AttemptSide, server: _AttemptSide, services: frozenset[str]) -> pa.Array:
    named = pc.coalesce(server.read("service"), caller.read("peer"))
    host = _null_unless(named.is_null(), caller.read("server_address"))
    if host.null_count < len(host):
        label = pc.list_element(pc.split_pattern(host, ".", max_splits=1), _FIRST_INDEX)
        known = pc.is_in(label, pa.array(services, pa.string()))
        named = pc.coalesce(named, _null_unless(known, label), _null_unless(pc.not_equal(host, _EMPTY_TEXT), host))
    return named.fill_null("unknown")


def _build_address(exit_: _AttemptSide) -> pa.Array:
    host, port = exit_.read("server_address"), exit_.read("server_port")
    address = pc.coalesce(pc.binary_join_element_wise(host, port, _COLON), host, port)
    return _null_unless(pc.not_equal(address, _EMPTY_TEXT), address)


def _make_dictionary_array(indices: IntArray, texts: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts, pa.string()))


def _null_unless(condition: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def _hash_span_pairs(caller: _AttemptSide, server: _AttemptSide) -> IntArray:
    """Make a number of each pair of spans: the finalizer of SplitMix64 (Steele et al., 2014), without the sign."""
    first, second = (keys.fill_null(0).to_numpy().astype(np.uint64) for keys in (caller.keys, server.keys))
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    named: IntArray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return named
