"""Nesting: client spans of frameworks, SDKs and drivers around the client spans that reach the network.

An exit span is a wrapper span if an exit span of its own service is below it, with no entry span between them. An inner
span at another address is a call by itself, as is a database or messaging span inside an HTTP span (a cache that a
client asks first). Client spans of parts of a call, such as the resolution of a name, are no exit spans.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import numpy as np
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array
from spanproof.collector.topology.server_addresses import Address, do_addresses_differ
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.topology import CLIENT, INTERNAL, Topology


class Nesting(Struct, frozen=True, dict=True):
    """The wrapper span right around each exit span, as rows; `MISSING_ROW` where there is none."""

    topology: Topology
    wrappers: IntArray

    @cached_property
    def is_wrapper(self) -> BoolArray:
        """Which spans are wrapper spans."""
        result = np.zeros(len(self.wrappers), np.bool_)
        result[self.wrappers[self.wrappers != MISSING_ROW]] = True
        return result

    @cached_property
    def is_innermost_exit(self) -> BoolArray:
        """Which spans are exit spans, but no wrapper spans."""
        result: BoolArray = self.topology.is_exit & ~self.is_wrapper
        return result

    @cached_property
    def inner_counts(self) -> Counter[int]:
        """The number of innermost exit spans inside each wrapper span."""
        wrapped = np.flatnonzero(self.is_innermost_exit & (self.wrappers != MISSING_ROW))
        return Counter(wrapper for row in wrapped.tolist() for wrapper in self.list_wrappers(row))

    def list_wrappers(self, row: int) -> list[int]:
        """Return the wrapper spans of an exit span, the nearest first."""
        found = []
        while (row := int(self.wrappers[row])) != MISSING_ROW:
            found.append(row)
        return found

    def find_outer_wrappers(self, exit_rows: IntArray) -> IntArray:
        """Return the outermost wrapper span of each exit span with several; `MISSING_ROW` otherwise."""
        found = np.full(len(exit_rows), MISSING_ROW)
        for position in self._find_wrapped(exit_rows):
            wrappers = self.list_wrappers(int(exit_rows[position]))
            found[position] = wrappers[-1] if len(wrappers) > 1 else MISSING_ROW
        return found

    def find_sole_wrappers(self, exit_rows: IntArray) -> IntArray:
        """Return the outermost span that wraps each exit span and no other; `MISSING_ROW` where there is none."""
        found = np.full(len(exit_rows), MISSING_ROW)
        for position in self._find_wrapped(exit_rows):
            sole = [row for row in self.list_wrappers(int(exit_rows[position])) if self.inner_counts[row] == 1]
            if sole:
                found[position] = sole[-1]
        return found

    def _find_wrapped(self, exit_rows: IntArray) -> list[int]:
        has_wrapper = (exit_rows != MISSING_ROW) & (self.wrappers[exit_rows] != MISSING_ROW)
        return np.flatnonzero(has_wrapper).tolist()

    def find_logical_parents(self, attempt_rows: IntArray) -> tuple[IntArray, BoolArray]:
        """Return the logical parent of each span, which all attempts of one call share, and for which it is missing.

        It is the nearest span that is neither a wrapper span nor an INTERNAL span around a single attempt: the span
        itself, or one above it. Where that is missing, the last one below it is returned.
        `attempt_rows` are the exit spans of all attempts, or the parents of bare entry spans.
        """
        topology = self.topology
        attempt_counts = np.zeros(len(topology.parents), np.int64)
        np.add.at(attempt_counts, attempt_rows[attempt_rows != MISSING_ROW], 1)
        for level in reversed(topology.levels):
            inside = level[~topology.is_entry[level]]
            np.add.at(attempt_counts, topology.parents[inside], attempt_counts[inside])
        is_around_one = topology.is_internal & ~topology.is_exit & ~topology.is_entry & (attempt_counts == 1)
        is_skipped = self.is_wrapper | is_around_one
        has_parent = topology.parents != MISSING_ROW
        logical_parents = np.arange(len(topology.parents))
        for level in topology.levels:
            skipped = level[(is_skipped & has_parent)[level]]
            logical_parents[skipped] = logical_parents[topology.parents[skipped]]
        return logical_parents, (is_skipped & ~has_parent)[logical_parents]


def find_nesting(spans: SpanBatch, topology: Topology) -> Nesting:
    """Return which exit spans wrap which, with the topology in which client spans of parts of a call are INTERNAL."""
    wrappers = np.full(len(topology.parents), MISSING_ROW)
    if not (topology.is_exit & (topology.exits_above != MISSING_ROW)).any():
        return Nesting(topology, wrappers)
    layers = _find_layers(spans, topology)
    topology = _mark_call_parts(spans, topology, layers)
    inner_rows = np.flatnonzero(topology.is_exit & (topology.exits_above != MISSING_ROW))
    inner_rows = inner_rows[np.argsort(topology.depths[inner_rows], kind="stable")]  # outer spans first
    outer_rows = topology.exits_above[inner_rows]
    involved = np.unique(np.concatenate([inner_rows, outer_rows]))
    addresses = _read_addresses(spans, involved)
    for inner, outer in zip(inner_rows.tolist(), outer_rows.tolist(), strict=True):
        if do_addresses_differ(addresses[inner], addresses[outer]) or not _can_wrap(layers[outer], layers[inner]):
            continue
        wrappers[inner] = outer
        is_server_unknown = addresses[inner].server_address is None or addresses[inner].is_network_peer
        if is_server_unknown and addresses[outer].server_address is not None:
            addresses[inner] = addresses[outer]
    return Nesting(topology, wrappers)


def _mark_call_parts(spans: SpanBatch, topology: Topology, layers: IntArray) -> Topology:
    """Return the topology in which client spans of parts of a call are INTERNAL.

    Instrumentation of name resolution and connections makes client spans inside the client span of a request: such a
    span has no protocol of its own, no answer, no other server's address, and no request inside.
    """
    rows = np.flatnonzero(topology.is_exit & (topology.exits_above != MISSING_ROW))
    exits_above = topology.exits_above
    is_candidate = (topology.kinds == CLIENT) & (layers == _OTHER) & ~to_bool_array(spans.column("rpc_attempt"))
    for name in ("peer_name", "gen_ai_provider"):
        is_candidate &= ~to_bool_array(spans.column(name).is_valid())
    callers = topology.parents[np.flatnonzero(topology.is_entry & (topology.parents != MISSING_ROW))]
    around_callers = exits_above[callers[~topology.is_exit[callers]]]
    is_candidate[np.concatenate([callers, around_callers[around_callers != MISSING_ROW]])] = False
    if not is_candidate[rows].any():
        return topology
    addresses = _read_addresses(spans, np.unique(np.concatenate([rows, exits_above[rows]])))
    parts: set[int] = set()
    with_requests: set[int] = set()  # exit spans with a request inside
    for row in rows[np.argsort(-topology.depths[rows], kind="stable")].tolist():  # inner spans first
        request = int(exits_above[row])
        while request != MISSING_ROW and layers[request] == _OTHER:
            request = int(exits_above[request])
        if (
            is_candidate[row]
            and row not in with_requests
            and request != MISSING_ROW
            and (addresses[row].is_network_peer or not do_addresses_differ(addresses[row], addresses[request]))
        ):
            parts.add(row)
        else:
            with_requests.add(int(exits_above[row]))
    if not parts:
        return topology
    part_rows = np.array(sorted(parts), np.int64)
    kinds, exits_above = topology.kinds.copy(), exits_above.copy()
    kinds[part_rows] = INTERNAL
    while len(inside := np.flatnonzero(np.isin(exits_above, part_rows))):
        exits_above[inside] = topology.exits_above[exits_above[inside]]
    return replace(topology, kinds=kinds, exits_above=exits_above)


def _read_addresses(spans: SpanBatch, rows: IntArray) -> dict[int, Address]:
    columns = [spans.column(name).take(pa.array(rows)).to_pylist() for name in Address._fields]
    return {row: Address(*values) for row, *values in zip(rows.tolist(), *columns, strict=True)}


_OTHER, _HTTP, _RPC, _DATABASE, _MESSAGING = range(5)


def _find_layers(spans: SpanBatch, topology: Topology) -> IntArray:
    is_producer = topology.is_producer
    layers: IntArray = np.select(
        [
            to_bool_array(spans.column("is_db")),
            to_bool_array(spans.column("is_messaging")) | is_producer,
            to_bool_array(spans.column("is_rpc")),
            to_bool_array(spans.column("is_http")),
        ],
        [_DATABASE, _MESSAGING, _RPC, _HTTP],
        _OTHER,
    )
    return layers


def _can_wrap(outer: int, inner: int) -> bool:
    """Return whether a span of one layer may carry out its request by a span of another layer."""
    return outer != _HTTP or inner not in (_DATABASE, _MESSAGING)
