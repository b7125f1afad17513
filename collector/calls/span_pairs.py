"""Pairs of caller and callee spans, in four shapes: the raw material of attempts."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from msgspec import Struct

from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array
from spanproof.collector.topology.nesting import Nesting
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.span_index import EntryLinks
from spanproof.collector.topology.topology import CONSUMER, PRODUCER, SERVER, Topology, is_exit_kind

# A client span with its server span, a client span alone, a server span alone, a message.
PAIRED, UNPAIRED, BARE, MESSAGE = "paired", "unpaired", "bare", "message"
SHAPES = (PAIRED, UNPAIRED, BARE, MESSAGE)


class SpanPairs(Struct, frozen=True):
    """Pairs of caller and callee by span rows (`MISSING_ROW` for a callee without a span), with their shapes.

    The caller of a bare call is the parent of the callee's entry span.
    """

    caller_rows: IntArray
    callee_rows: IntArray
    shape_indices: IntArray  # indices into `SHAPES`

    @property
    def exit_rows(self) -> IntArray:
        """The exit span of each pair; `MISSING_ROW` for bare calls."""
        return np.where(self.shape_indices == SHAPES.index(BARE), MISSING_ROW, self.caller_rows)


def find_continuations(spans: SpanBatch, topology: Topology, links: EntryLinks) -> list[tuple[int, int]]:
    """Return requests that a service continues in a new trace, as pairs: new entry span, original entry span."""
    continuations = set()
    for row, targets in zip(links.rows.tolist(), links.targets, strict=True):
        for target in targets if spans.kinds[row] == SERVER else ():
            entry = int(topology.entries[target])
            if spans.services[target] == spans.services[row] and entry not in (MISSING_ROW, row):
                continuations.add((row, entry))
    return sorted(continuations)


def pair_spans(spans: SpanBatch, nesting: Nesting, links: EntryLinks, are_proxies: BoolArray) -> SpanPairs:
    """Return the pairs of caller and callee spans."""
    topology = nesting.topology
    kinds, parents = topology.kinds, topology.parents
    # a client span made the request also if INTERNAL spans are between it and the callee's span
    is_below_exit = is_exit_kind(kinds[parents]) | (topology.exits_above[parents] != MISSING_ROW)
    has_caller = (parents != MISSING_ROW) & (is_below_exit | topology.has_other_service_parent)
    callees = np.flatnonzero(topology.is_entry & has_caller & ~are_proxies & ~are_proxies[parents])
    callers = parents[callees]
    is_inside = ~is_exit_kind(kinds[callers]) & (topology.exits_above[callers] != MISSING_ROW)
    callers = np.where(is_inside, topology.exits_above[callers], callers)
    linked_pairs = _pair_by_links(spans, topology, links, callers, callees)
    callers = np.concatenate([callers, linked_pairs[:, 0]])
    callees = np.concatenate([callees, linked_pairs[:, 1]])
    redelivered_pairs = _pair_redeliveries(spans, topology, callers, callees)
    callers = np.concatenate([callers, redelivered_pairs[:, 0]])
    callees = np.concatenate([callees, redelivered_pairs[:, 1]])
    callers = _move_to_inner_exits(spans, nesting, callers, callees)
    messages = (kinds[callees] == CONSUMER) | (kinds[callers] == PRODUCER)
    shapes = np.select([~is_exit_kind(kinds[callers]), messages], [SHAPES.index(BARE), SHAPES.index(MESSAGE)], 0)
    kept = _find_deliveries(spans, callers, callees, shapes)
    callers, callees, shapes = callers[kept], callees[kept], shapes[kept]
    unpaired = nesting.is_innermost_exit & ~are_proxies
    unpaired[callers[shapes != SHAPES.index(BARE)]] = False
    unpaired_rows = np.flatnonzero(unpaired)
    return SpanPairs(
        np.concatenate([callers, unpaired_rows]),
        np.concatenate([callees, np.full_like(unpaired_rows, MISSING_ROW)]),
        np.concatenate([shapes, np.full_like(unpaired_rows, SHAPES.index(UNPAIRED))]),
    )


def _pair_by_links(
    spans: SpanBatch, topology: Topology, links: EntryLinks, callers: IntArray, callees: IntArray
) -> IntArray:
    """Pair consumers with the producers that they link to, except pairs that are known: `callers` and `callees`."""
    pairs = {
        (target, row)
        for row, targets in zip(links.rows.tolist(), links.targets, strict=True)
        for target in (targets if spans.kinds[row] == CONSUMER else ())
        if topology.kinds[target] == PRODUCER
    }
    if pairs:
        pairs -= set(zip(callers.tolist(), callees.tolist(), strict=True))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _pair_redeliveries(spans: SpanBatch, topology: Topology, callers: IntArray, callees: IntArray) -> IntArray:
    """Pair consumers that nothing ties to a producer with the producer of the first other delivery of their message."""
    keys = spans.column("message_key")
    unlinked = (topology.kinds == CONSUMER) & topology.is_entry & spans.is_unlinked & to_bool_array(keys.is_valid())
    if not unlinked.any():
        return np.empty((0, 2), np.int64)
    starts = spans.column("start_ns").to_numpy()
    is_delivery = (topology.kinds[callers] == PRODUCER) & (topology.kinds[callees] == CONSUMER)
    deliveries = sorted(
        zip(callees[is_delivery].tolist(), callers[is_delivery].tolist(), strict=True),
        key=lambda pair: (starts[pair[0]], pair),
    )
    producers: dict[str, int] = {}
    for callee, caller in deliveries:
        key = keys[callee].as_py()
        if key is not None:
            producers.setdefault(key, caller)
    rows = np.flatnonzero(unlinked).tolist()
    pairs = [(producers[key], row) for row in rows if (key := keys[row].as_py()) in producers]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _move_to_inner_exits(spans: SpanBatch, nesting: Nesting, callers: IntArray, callees: IntArray) -> IntArray:
    """Replace callers that are wrapper spans by the exit span inside that last started before the callee.

    Exit spans that have callees of their own are left alone.
    """
    positions = np.flatnonzero(nesting.is_wrapper[callers])
    if not len(positions):
        return callers
    starts = spans.column("start_ns").to_numpy()
    inner_exits: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(nesting.is_innermost_exit & (nesting.wrappers != MISSING_ROW)).tolist():
        for wrapper in nesting.list_wrappers(row):
            inner_exits[wrapper].append(row)
    with_callees = set(callers.tolist())
    moved = callers.copy()
    for position in positions.tolist():
        inner = [row for row in inner_exits[int(callers[position])] if row not in with_callees]
        if inner:
            callee_start = starts[callees[position]]
            before = [row for row in inner if starts[row] <= callee_start]
            moved[position] = max(before or inner, key=lambda row: (starts[row] if before else -starts[row], -row))
    return moved


def _find_deliveries(spans: SpanBatch, callers: IntArray, callees: IntArray, shapes: IntArray) -> IntArray:
    """Return the positions of the pairs to keep: of a receive and a process span of one delivery, the latter."""
    messages = np.flatnonzero(shapes == SHAPES.index(MESSAGE))
    everything = np.arange(len(callers))
    operations = spans.column("messaging_operation")
    if len(messages) < 2 or operations.null_count == len(operations):
        return everything
    starts = spans.column("start_ns").to_numpy()
    groups: defaultdict[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for position in messages.tolist():
        row = int(callees[position])
        is_receive = operations[row].as_py() == "receive"
        groups[int(callers[position]), int(spans.services[row])][0 if is_receive else 1].append(position)
    dropped: list[int] = []
    for receives, processes in groups.values():
        receives.sort(key=lambda position: starts[callees[position]])
        dropped += receives[: len(processes)]
    return np.setdiff1d(everything, dropped)
