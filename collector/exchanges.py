"""Says who asked whom: pairs the exit span of a caller with the entry span of whoever answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.columns import NOWHERE, Bools, Ints, as_bools
from spanproof.collector.fresh import Fresh, failed, worth_retrying
from spanproof.collector.places import CONSUMER, PRODUCER, SERVER, Tree, are_exits
from spanproof.collector.span_ids import Links

# The shapes of an exchange: a client's span with its server's, without one, a server's span alone, a message.
PAIRED, UNPAIRED, BARE, MESSAGE = "paired", "unpaired", "bare", "message"
_SHAPES = (PAIRED, UNPAIRED, BARE, MESSAGE)
_PROTOCOLS = ("db", "messaging", "rpc", "http", "other")
# typed, as in fresh.py
_ONE, _PRODUCER = (pa.scalar(value, pa.int32()) for value in (1, PRODUCER))
_FIRST = pa.scalar(0, pa.int64())
_COLON, _NONE = (pa.scalar(value, pa.string()) for value in (":", ""))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Who asked whom, by rows: the span that asked, the one that was asked (or `NOWHERE`), and the shape."""

    askers: Ints
    asked: Ints
    shapes: Ints  # places in `_SHAPES`


def find_continued(spans: Fresh, tree: Tree, links: Links) -> list[tuple[int, int]]:
    """Find requests that a service went on with in a trace of its own: its entry span, and that of the request."""
    found = set()
    for row, targets in zip(links.rows.tolist(), links.targets, strict=True):
        for target in targets if spans.kinds[row] == SERVER else ():
            entry = int(tree.entries[target])
            if spans.services[target] == spans.services[row] and entry not in (NOWHERE, row):
                found.add((row, entry))
    return sorted(found)


def pair(spans: Fresh, tree: Tree, links: Links, proxies: frozenset[str]) -> Pairs:
    """Find who asked whom."""
    kinds, above = spans.kinds, tree.parents
    are_proxies = spans.are_of(proxies)
    by_another = (above != NOWHERE) & (are_exits(kinds[above]) | tree.other)
    asked = np.flatnonzero(tree.is_entry & by_another & ~are_proxies & ~are_proxies[above])
    askers = above[asked]
    messages = (kinds[asked] == CONSUMER) | (kinds[askers] == PRODUCER)
    shapes = np.select([~are_exits(kinds[askers]), messages], [_SHAPES.index(BARE), _SHAPES.index(MESSAGE)], 0)
    by_links = _pair_linked(spans, links, set(zip(askers[messages].tolist(), asked[messages].tolist(), strict=True)))
    askers = np.concatenate([askers, by_links[:, 0]])
    asked = np.concatenate([asked, by_links[:, 1]])
    shapes = np.concatenate([shapes, np.full(len(by_links), _SHAPES.index(MESSAGE))])
    unanswered = are_exits(kinds) & ~are_proxies
    unanswered[askers[shapes != _SHAPES.index(BARE)]] = False
    # gRPC's attempts are the calls, not the span above them
    above_attempts = above[as_bools(spans.column("rpc_attempt"))]
    unanswered[above_attempts[above_attempts != NOWHERE]] = False
    alone = np.flatnonzero(unanswered)
    return Pairs(
        np.concatenate([askers, alone]),
        np.concatenate([asked, np.full_like(alone, NOWHERE)]),
        np.concatenate([shapes, np.full_like(alone, _SHAPES.index(UNPAIRED))]),
    )


def _pair_linked(spans: Fresh, links: Links, known: set[tuple[int, int]]) -> Ints:
    """Pair consumers with the producers that they link to, where they are no pair already."""
    found = {
        (target, row)
        for row, targets in zip(links.rows.tolist(), links.targets, strict=True)
        for target in (targets if spans.kinds[row] == CONSUMER else ())
        if spans.kinds[target] == PRODUCER
    }
    return np.array(sorted(found - known), np.int64).reshape(-1, 2)


def describe(spans: Fresh, tree: Tree, pairs: Pairs, services: frozenset[str]) -> pa.Table:
    """Describe each exchange, in the columns of ``exchanges`` that are not about attempts, and some beside.

    `services` are all that are known: a host name's first label counts as the peer if it is one.
    """
    asker, server = _Side(spans, tree, pairs.askers), _Side(spans, tree, pairs.asked)
    bare, message = (pa.array(pairs.shapes == _SHAPES.index(shape)) for shape in (BARE, MESSAGE))
    paired = pa.array(pairs.shapes == _SHAPES.index(PAIRED))
    exit_ = _Side(spans, tree, np.where(bare, NOWHERE, pairs.askers))  # a bare call has none

    def either(column: str) -> pa.Array:
        return pc.coalesce(exit_.read(column), server.read(column))

    def any_says(column: str) -> Bools:
        return as_bools(exit_.read(column)) | as_bools(server.read(column))

    error = failed(either("status"), either("answer"), either("rpc_failed"))
    # a message has failed, too, where what took it up did
    error |= as_bools(message) & server.errors
    start_ns, server_start_ns = either("start_ns"), server.read("start_ns")
    end_ns = pc.if_else(message, server.read("end_ns"), either("end_ns"))
    delivered = pc.subtract(server.read("deliveries"), _ONE)
    protocol = np.select(
        [any_says("is_db"), any_says("is_messaging") | as_bools(message), any_says("is_rpc"), any_says("is_http")],
        range(len(_PROTOCOLS) - 1),
        len(_PROTOCOLS) - 1,
    )
    return pa.table(
        {
            "trace_id": asker.read("trace_id"),
            "dirty": asker.read("dirty"),
            "exchange_key": _name_exchanges(asker, server),
            "shape": _choose(pairs.shapes, _SHAPES),
            "caller": asker.read("service"),
            "callee": _name_callee(asker, server, services),
            "operation": pc.coalesce(server.read("name"), exit_.read("name")),
            "address": _address(exit_),
            "protocol": _choose(protocol, _PROTOCOLS),
            # what nobody took up was sent all the same
            "async": pc.or_(message, pc.equal(asker.read("kind"), _PRODUCER)),
            "parent_id": pc.if_else(bare, asker.read("span_id"), asker.read("parent_id")),
            "caller_entry": asker.entries,
            "callee_entry": server.entries,
            "client_key": exit_.keys,
            "server_key": server.keys,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "network_ns": _where(paired, pc.subtract(exit_.durations, server.durations)),
            "lag_ns": _where(message, pc.subtract(server_start_ns, exit_.read("end_ns"))),
            "status": either("status"),
            "error": error,
            "retryable": worth_retrying(error, any_says("says_why"), either("answer")),
            "answer": either("answer"),
            "server_start_ns": server_start_ns,
            "server_end_ns": server.read("end_ns"),
            "server_status": server.read("status"),
            "server_error": server.errors,
            "server_retryable": worth_retrying(server.errors, as_bools(server.read("says_why")), server.read("answer")),
            "resend_count": pc.coalesce(exit_.read("counter"), _where(message, delivered)),
            "definite": asker.definite & server.definite,
        }
    )


class _Side:
    """One side of exchanges: the columns of these rows, without values where there is no span."""

    def __init__(self, spans: Fresh, tree: Tree, rows: Ints) -> None:
        self._spans = spans
        self._places = pa.array(rows, mask=rows == NOWHERE)
        self._read: dict[str, pa.Array] = {}
        self.keys = self.read("span_key")
        self.errors = as_bools(self._take(pa.array(spans.errors)))
        self.definite = as_bools(self._take(pa.array(tree.definite)))
        self.entries = spans.take_keys(np.where(rows == NOWHERE, NOWHERE, tree.entries[rows]))

    def read(self, column: str) -> pa.Array:
        """Return a column."""
        if column not in self._read:
            self._read[column] = self._take(self._spans.column(column))
        return self._read[column]

    @property
    def durations(self) -> pa.Array:
        """How long each took, in nanoseconds."""
        return pc.subtract(self.read("end_ns"), self.read("start_ns"))

    def _take(self, values: pa.Array) -> pa.Array:
        return values.take(self._places)


def _name_callee(asker: _Side, server: _Side, services: frozenset[str]) -> pa.Array:
    named = pc.coalesce(server.read("service"), asker.read("peer"))
    host = _where(named.is_null(), asker.read("server_address"))
    if host.null_count < len(host):
        label = pc.list_element(pc.split_pattern(host, ".", max_splits=1), _FIRST)
        known = pc.is_in(label, pa.array(services, pa.string()))
        named = pc.coalesce(named, _where(known, label), _where(pc.not_equal(host, _NONE), host))
    return named.fill_null("unknown")


def _address(exit_: _Side) -> pa.Array:
    host, port = exit_.read("server_address"), exit_.read("server_port")
    address = pc.coalesce(pc.binary_join_element_wise(host, port, _COLON), host, port)
    return _where(pc.not_equal(address, _NONE), address)


def _choose(places: Ints, texts: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(texts, pa.string()))


def _where(condition: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def _name_exchanges(asker: _Side, server: _Side) -> Ints:
    """Make a number of each pair of spans: the finalizer of SplitMix64 (Steele et al., 2014), without the sign."""
    first, second = (keys.fill_null(0).to_numpy().astype(np.uint64) for keys in (asker.keys, server.keys))
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    named: Ints = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return named
