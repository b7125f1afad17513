"""Topology: the parent, the entry span and the depth of each span in its trace."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.span_errors import find_errors

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = (
    SPAN_KINDS[kind] for kind in ("internal", "server", "client", "producer", "consumer")
)
# The first span above a span in its own service that is an entry or an exit span.
_NO_KIND_ABOVE, _ENTRY_ABOVE, _EXIT_ABOVE, _SAME_AS_PARENT = range(4)
_MAX_PROXIES = 1000  # in a row; they may form a cycle


class Topology(Struct, frozen=True):
    """The position of each span; `MISSING_ROW` for a parent or an entry span that is not present."""

    parents: IntArray
    entries: IntArray  # the entry span of each span: itself, or the nearest one above in its service
    is_entry: BoolArray
    is_orphan: BoolArray  # its parent id refers to a span that is not present
    is_definite: BoolArray  # no later span can change `entries` and `is_entry`
    depths: IntArray  # 0 for a root or an orphan
    has_other_service_parent: BoolArray  # its parent belongs to another service
    kinds: IntArray  # as in `SpanBatch`, but INTERNAL spans that call another service are CLIENT
    exits_above: IntArray  # the nearest exit span above each span, in its service and below its entry span
    errors: BoolArray
    levels: list[IntArray]  # the spans of depth 1, 2, …

    @property
    def is_exit(self) -> BoolArray:
        """Which spans are exit spans."""
        return is_exit_kind(self.kinds)

    @property
    def is_internal(self) -> BoolArray:
        """Which spans are of kind INTERNAL or UNSPECIFIED."""
        internal: BoolArray = self.kinds <= INTERNAL
        return internal

    @property
    def is_producer(self) -> BoolArray:
        """Which spans are of kind PRODUCER."""
        producers: BoolArray = self.kinds == PRODUCER
        return producers


def is_entry_kind(kinds: IntArray) -> BoolArray:
    """Return which kinds are those of entry spans, which record incoming requests."""
    entries: BoolArray = (kinds == SERVER) | (kinds == CONSUMER)
    return entries


def is_exit_kind(kinds: IntArray) -> BoolArray:
    """Return which kinds are those of exit spans, which record outgoing requests."""
    exits: BoolArray = (kinds == CLIENT) | (kinds == PRODUCER)
    return exits


def build_topology(spans: SpanBatch, are_proxies: BoolArray, edges: frozenset[str]) -> Topology:
    """Return the topology of whole traces. The caller of a sidecar counts as the caller of the request behind it.

    The parent of a span of an edge never arrives, so that the span counts as a root.
    """
    own_parents = _resolve_parents(spans)
    parents = _skip_proxies(own_parents, are_proxies)
    roots = parents == MISSING_ROW
    has_parent_id = to_bool_array(spans.column("parent_id").is_valid())
    is_orphan = (own_parents == MISSING_ROW) & has_parent_id & ~to_bool_array(spans.column("has_trigger_parent"))
    is_orphan &= ~spans.is_of_services(edges)
    above_services = spans.services[parents]  # meaningless for roots
    has_other_service_parent = ~roots & (spans.services != above_services)
    kinds = _find_kinds(spans, parents[has_other_service_parent])
    is_kind_of_entry, is_exit, above_kinds = is_entry_kind(kinds), is_exit_kind(kinds), kinds[parents]
    rows = np.arange(len(spans))
    is_entry = ~is_orphan | is_kind_of_entry
    topology = Topology(
        parents,
        np.where(is_entry, rows, MISSING_ROW),
        is_entry,
        is_orphan,
        ~is_orphan,
        np.zeros_like(rows),
        has_other_service_parent,
        kinds,
        np.full_like(rows, MISSING_ROW),
        find_errors(spans.column("status"), spans.column("http_outcome"), spans.column("rpc_outcome"), is_exit),
        [],
    )
    first_above = np.select(
        [roots | has_other_service_parent, is_entry_kind(above_kinds), is_exit_kind(above_kinds)],
        [_NO_KIND_ABOVE, _ENTRY_ABOVE, _EXIT_ABOVE],
        _SAME_AS_PARENT,
    )
    placed = roots.copy()
    pending = np.flatnonzero(~roots)
    while len(pending):
        ready = placed[parents[pending]]
        level, pending = pending[ready], pending[~ready]
        if not len(level):
            break
        above = parents[level]
        first_above[level] = np.where(first_above[level] == _SAME_AS_PARENT, first_above[above], first_above[level])
        topology.is_entry[level] = has_other_service_parent[level] | (
            is_kind_of_entry[level] & (first_above[level] != _ENTRY_ABOVE)
        )
        topology.entries[level] = np.where(topology.is_entry[level], level, topology.entries[above])
        topology.is_definite[level] = has_other_service_parent[level] | topology.is_definite[above]
        topology.depths[level] = topology.depths[above] + 1
        exits_above = np.where(is_exit[above], above, topology.exits_above[above])
        topology.exits_above[level] = np.where(topology.is_entry[level], MISSING_ROW, exits_above)
        topology.levels.append(level)
        placed[level] = True
    _break_cycles(topology, pending, is_kind_of_entry)
    topology.is_entry[are_proxies] = False  # a sidecar serves no request: the service behind it does
    topology.entries[are_proxies] = MISSING_ROW
    return topology


def _find_kinds(spans: SpanBatch, callers: IntArray) -> IntArray:
    """Return the kinds of the spans. `callers` are the parents of entry spans of other services.

    Such a parent of kind INTERNAL is a CLIENT span if it has the attributes of one.
    """
    is_called_internally = np.zeros(len(spans), np.bool_)
    is_called_internally[callers[spans.kinds[callers] <= INTERNAL]] = True
    if not is_called_internally.any():
        return spans.kinds
    has_address = to_bool_array(spans.column("address").is_valid()) | to_bool_array(spans.column("has_url"))
    is_client = to_bool_array(spans.column("has_http_method")) & has_address
    for name in ("is_rpc", "is_db", "is_messaging"):
        is_client |= to_bool_array(spans.column(name))
    return np.where(is_called_internally & is_client, CLIENT, spans.kinds)


def _break_cycles(topology: Topology, rows: IntArray, is_kind_of_entry: BoolArray) -> None:
    """Mark spans as orphans if their parents form a cycle or are below one."""
    topology.parents[rows] = MISSING_ROW
    topology.is_entry[rows] = is_kind_of_entry[rows]
    topology.entries[rows] = np.where(is_kind_of_entry[rows], rows, MISSING_ROW)
    topology.is_orphan[rows] = True
    topology.is_definite[rows] = False
    topology.has_other_service_parent[rows] = False


def _resolve_parents(spans: SpanBatch) -> IntArray:
    """Return the parent of each span, by its parent id.

    Two spans may share an id, because a server may reuse the id of its client. Then the parent is the span in the
    child's own service, and the parent of such a server is that client.
    """
    parents = spans.declared_parents.copy()
    parents[parents == np.arange(len(parents))] = MISSING_ROW
    shared = spans.index.rows_with_shared_ids
    if not shared:
        return parents
    firsts = np.fromiter(shared, np.int64)
    has_shared_id = np.isin(spans.index.first_rows, firsts)
    ids = spans.index.first_rows
    starts = spans.column("start_ns").to_numpy()
    for row in np.flatnonzero(has_shared_id | np.isin(spans.declared_parents, firsts)).tolist():
        kind, service = spans.kinds[row], spans.services[row]
        declared = int(spans.declared_parents[row])
        candidates = []
        for parent in [] if declared == MISSING_ROW else shared.get(declared, [declared]):
            are_servers = kind == SERVER and spans.kinds[parent] == SERVER and ids[parent] == ids[row]
            if parent != row and not are_servers:
                is_other_service, is_not_server = spans.services[parent] != service, spans.kinds[parent] != SERVER
                candidates.append((True, is_other_service, is_not_server, starts[parent], parent))
        if kind == SERVER and has_shared_id[row]:
            clients = (other for other in shared[int(ids[row])] if spans.kinds[other] == CLIENT)
            candidates += [(False, False, True, starts[client], client) for client in clients]
        if candidates:
            parents[row] = min(candidates)[-1]
    return parents


def _skip_proxies(parents: IntArray, are_proxies: BoolArray) -> IntArray:
    """Replace parents that are sidecars by the first span above them that is not, except for spans of sidecars."""
    if not are_proxies.any():
        return parents
    resolved = parents.copy()
    for _ in range(_MAX_PROXIES):
        proxied = np.flatnonzero((resolved != MISSING_ROW) & are_proxies[resolved] & ~are_proxies)
        if not len(proxied):
            break
        resolved[proxied] = parents[resolved[proxied]]
    return resolved
