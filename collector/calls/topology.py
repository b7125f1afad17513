"""Says where each span stands in its trace: below which, and in which entry span of its service."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array

SERVER, CLIENT, PRODUCER, CONSUMER = (SPAN_KINDS[kind] for kind in ("server", "client", "producer", "consumer"))
# What comes first going up from a span through its own service.
_NO_KIND_ABOVE, _ENTRY_ABOVE, _EXIT_ABOVE, _SAME_AS_PARENT = range(4)
_MAX_PROXIES = 1000  # in a row; they may form a circle


@dataclass(frozen=True, slots=True)
class Topology:
    """Where each span stands; `NOWHERE` for a parent or an entry span that is not there."""

    parents: IntArray
    entries: IntArray  # the entry span that each belongs to: itself, or the nearest one above in its service
    is_entry: BoolArray
    is_orphan: BoolArray  # it names a parent that is not here
    is_definite: BoolArray  # no span still to come can change `entries` and `is_entry`
    depths: IntArray  # 0 for a root or an orphan
    has_other_service_parent: BoolArray  # its parent is of another service


def is_entry_kind(kinds: IntArray) -> BoolArray:
    """Tell which kinds are those of entry spans: what a service was asked for."""
    entries: BoolArray = (kinds == SERVER) | (kinds == CONSUMER)
    return entries


def is_exit_kind(kinds: IntArray) -> BoolArray:
    """Tell which kinds are those of exit spans: what a service asks others for."""
    exits: BoolArray = (kinds == CLIENT) | (kinds == PRODUCER)
    return exits


def build_topology(spans: SpanBatch, proxies: frozenset[str]) -> Topology:
    """Place the spans of whole traces. What came through a sidecar is taken to come from whoever asked the sidecar."""
    own_parents = _resolve_parents(spans)
    parents = _skip_proxies(own_parents, spans.is_of_services(proxies))
    roots = parents == MISSING_ROW
    names_one = to_bool_array(spans.column("parent_id").is_valid())
    orphan = (own_parents == MISSING_ROW) & names_one & ~to_bool_array(spans.column("asked_by_us"))
    is_kind_of_entry = is_entry_kind(spans.kinds)
    above_kinds, above_services = spans.kinds[parents], spans.services[parents]  # of roots they mean nothing
    other = ~roots & (spans.services != above_services)
    here = np.arange(len(spans))
    is_entry = ~orphan | is_kind_of_entry
    topology = Topology(
        parents, np.where(is_entry, here, MISSING_ROW), is_entry, orphan, ~orphan, np.zeros_like(here), other
    )
    met = np.select(
        [roots | other, is_entry_kind(above_kinds), is_exit_kind(above_kinds)],
        [_NO_KIND_ABOVE, _ENTRY_ABOVE, _EXIT_ABOVE],
        _SAME_AS_PARENT,
    )
    placed = roots.copy()
    waiting = np.flatnonzero(~roots)
    while len(waiting):
        ready = placed[parents[waiting]]
        level, waiting = waiting[ready], waiting[~ready]
        if not len(level):
            break
        above = parents[level]
        met[level] = np.where(met[level] == _SAME_AS_PARENT, met[above], met[level])
        topology.is_entry[level] = other[level] | (is_kind_of_entry[level] & (met[level] != _ENTRY_ABOVE))
        topology.entries[level] = np.where(topology.is_entry[level], level, topology.entries[above])
        topology.is_definite[level] = other[level] | topology.is_definite[above]
        topology.depths[level] = topology.depths[above] + 1
        placed[level] = True
    _break_cycles(topology, waiting, is_kind_of_entry)
    return topology


def _break_cycles(topology: Topology, rows: IntArray, is_kind_of_entry: BoolArray) -> None:
    """Take spans whose parents form a circle, and those below them, for orphans."""
    topology.parents[rows] = MISSING_ROW
    topology.is_entry[rows] = is_kind_of_entry[rows]
    topology.entries[rows] = np.where(is_kind_of_entry[rows], rows, MISSING_ROW)
    topology.is_orphan[rows] = True
    topology.is_definite[rows] = False
    topology.has_other_service_parent[rows] = False


def _resolve_parents(spans: SpanBatch) -> IntArray:
    """Find each span's parent by its id.

    Where two spans share an id (a server that took over its client's), the one in the child's own service is meant; and
    such a server's parent is that client.
    """
    parents = spans.declared_parents.copy()
    parents[parents == np.arange(len(parents))] = MISSING_ROW
    shared = spans.index.rows_with_shared_ids
    if not shared:
        return parents
    firsts = np.fromiter(shared, np.int64)
    sharing = np.isin(spans.index.first_rows, firsts)
    ids = spans.index.first_rows
    starts = spans.column("start_ns").to_numpy()
    for row in np.flatnonzero(sharing | np.isin(spans.declared_parents, firsts)).tolist():
        kind, service = spans.kinds[row], spans.services[row]
        named = int(spans.declared_parents[row])
        found = []
        for parent in [] if named == MISSING_ROW else shared.get(named, [named]):
            twins = kind == SERVER and spans.kinds[parent] == SERVER and ids[parent] == ids[row]
            if parent != row and not twins:
                strange, no_server = spans.services[parent] != service, spans.kinds[parent] != SERVER
                found.append((True, strange, no_server, starts[parent], parent))
        if kind == SERVER and sharing[row]:
            clients = (other for other in shared[int(ids[row])] if spans.kinds[other] == CLIENT)
            found += [(False, False, True, starts[client], client) for client in clients]
        if found:
            parents[row] = min(found)[-1]
    return parents


def _skip_proxies(parents: IntArray, are_proxies: BoolArray) -> IntArray:
    """Go on up through sidecars, from spans that are none."""
    if not are_proxies.any():
        return parents
    climbed = parents.copy()
    for _ in range(_MAX_PROXIES):
        through = np.flatnonzero((climbed != MISSING_ROW) & are_proxies[climbed] & ~are_proxies)
        if not len(through):
            break
        climbed[through] = parents[climbed[through]]
    return climbed
