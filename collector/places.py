"""Says where each span stands in its trace: below which, and in which entry span of its service."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spanproof.collector.columns import NOWHERE, Bools, Ints, as_bools
from spanproof.collector.fresh import Fresh
from spanproof.collector.semconv import SPAN_KINDS

SERVER, CLIENT, PRODUCER, CONSUMER = (SPAN_KINDS[kind] for kind in ("server", "client", "producer", "consumer"))
# What comes first going up from a span through its own service.
_NEITHER, _AN_ENTRY, _AN_EXIT, _ASK_ABOVE = range(4)
_MOST_PROXIES = 1000  # in a row; they may form a circle


@dataclass(frozen=True, slots=True)
class Tree:
    """Where each span stands; `NOWHERE` for a parent or an entry span that is not there."""

    parents: Ints
    entries: Ints  # the entry span that each belongs to: itself, or the nearest one above in its service
    is_entry: Bools
    orphan: Bools  # it names a parent that is not here
    definite: Bools  # no span still to come can change `entries` and `is_entry`
    depth: Ints  # 0 for a root or an orphan
    other: Bools  # its parent is of another service


def are_entries(kinds: Ints) -> Bools:
    """Tell which kinds are those of entry spans: what a service was asked for."""
    entries: Bools = (kinds == SERVER) | (kinds == CONSUMER)
    return entries


def are_exits(kinds: Ints) -> Bools:
    """Tell which kinds are those of exit spans: what a service asks others for."""
    exits: Bools = (kinds == CLIENT) | (kinds == PRODUCER)
    return exits


def place(spans: Fresh, proxies: frozenset[str]) -> Tree:
    """Place the spans of whole traces. What came through a sidecar is taken to come from whoever asked the sidecar."""
    own_parents = _choose_parents(spans)
    parents = _pass_proxies(own_parents, spans.are_of(proxies))
    roots = parents == NOWHERE
    names_one = as_bools(spans.column("parent_id").is_valid())
    orphan = (own_parents == NOWHERE) & names_one & ~as_bools(spans.column("asked_by_us"))
    is_kind_of_entry = are_entries(spans.kinds)
    above_kinds, above_services = spans.kinds[parents], spans.services[parents]  # of roots they mean nothing
    other = ~roots & (spans.services != above_services)
    here = np.arange(len(spans))
    is_entry = ~orphan | is_kind_of_entry
    tree = Tree(parents, np.where(is_entry, here, NOWHERE), is_entry, orphan, ~orphan, np.zeros_like(here), other)
    met = np.select(
        [roots | other, are_entries(above_kinds), are_exits(above_kinds)],
        [_NEITHER, _AN_ENTRY, _AN_EXIT],
        _ASK_ABOVE,
    )
    placed = roots.copy()
    waiting = np.flatnonzero(~roots)
    while len(waiting):
        ready = placed[parents[waiting]]
        level, waiting = waiting[ready], waiting[~ready]
        if not len(level):
            break
        above = parents[level]
        met[level] = np.where(met[level] == _ASK_ABOVE, met[above], met[level])
        tree.is_entry[level] = other[level] | (is_kind_of_entry[level] & (met[level] != _AN_ENTRY))
        tree.entries[level] = np.where(tree.is_entry[level], level, tree.entries[above])
        tree.definite[level] = other[level] | tree.definite[above]
        tree.depth[level] = tree.depth[above] + 1
        placed[level] = True
    _part_circles(tree, waiting, is_kind_of_entry)
    return tree


def _part_circles(tree: Tree, rows: Ints, is_kind_of_entry: Bools) -> None:
    """Take spans whose parents form a circle, and those below them, for orphans."""
    tree.parents[rows] = NOWHERE
    tree.is_entry[rows] = is_kind_of_entry[rows]
    tree.entries[rows] = np.where(is_kind_of_entry[rows], rows, NOWHERE)
    tree.orphan[rows] = True
    tree.definite[rows] = False
    tree.other[rows] = False


def _choose_parents(spans: Fresh) -> Ints:
    """Find each span's parent by its id.

    Where two spans share an id (a server that took over its client's), the one in the child's own service is meant; and
    such a server's parent is that client.
    """
    parents = spans.parents_named.copy()
    parents[parents == np.arange(len(parents))] = NOWHERE
    shared = spans.ids.shared
    if not shared:
        return parents
    firsts = np.fromiter(shared, np.int64)
    sharing = np.isin(spans.ids.first, firsts)
    ids = spans.ids.first
    starts = spans.column("start_ns").to_numpy()
    for row in np.flatnonzero(sharing | np.isin(spans.parents_named, firsts)).tolist():
        kind, service = spans.kinds[row], spans.services[row]
        named = int(spans.parents_named[row])
        found = []
        for parent in [] if named == NOWHERE else shared.get(named, [named]):
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


def _pass_proxies(parents: Ints, are_proxies: Bools) -> Ints:
    """Go on up through sidecars, from spans that are none."""
    if not are_proxies.any():
        return parents
    climbed = parents.copy()
    for _ in range(_MOST_PROXIES):
        through = np.flatnonzero((climbed != NOWHERE) & are_proxies[climbed] & ~are_proxies)
        if not len(through):
            break
        climbed[through] = parents[climbed[through]]
    return climbed
