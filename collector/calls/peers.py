"""Names of callees that sent no span: by what the caller's span records, and by what answered at the same address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, field

from spanproof.collector.calls.request_identity import PROTOCOLS, identify_request
from spanproof.collector.calls.span_pairs import SpanPairs
from spanproof.collector.storage.arrow_columns import (
    MISSING_ROW,
    BoolArray,
    IntArray,
    find_distinct_rows,
    to_bool_array,
)
from spanproof.collector.topology.nesting import Nesting
from spanproof.collector.topology.server_addresses import is_loopback
from spanproof.collector.topology.span_batch import SpanBatch

UNKNOWN_PEER: Final = "unknown"
_SPACE = pa.scalar(" ", pa.string())
_FIRST_INDEX = pa.scalar(0, pa.int64())
_PEER_COLUMNS: Final = ("peer_name", "system", "server_address", "gen_ai_provider")


class KnownPeers(Struct, frozen=True):
    """What a store has learned: its `services`, and which of them answer at an address.

    `services_by_address` maps a key of `make_address_key` to the services that have answered there. Only an address
    at which one service answers names it.
    """

    services: frozenset[str] = frozenset()
    services_by_address: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def with_answers(self, answers: Mapping[str, frozenset[str]]) -> KnownPeers:
        """Return these and the services that answered in new spans."""
        merged = dict(self.services_by_address)
        for key, services in answers.items():
            merged[key] = merged.get(key, frozenset()) | services
        return KnownPeers(self.services, merged)

    def find_service(self, key: str | None) -> str | None:
        """Return the only service that answers at an address."""
        services = self.services_by_address.get(key, frozenset()) if key is not None else frozenset()
        return next(iter(services)) if len(services) == 1 else None

    def find_ambiguous(self, callers: pa.Array, addresses: pa.Array) -> BoolArray:
        """Return which attempts name no address, or one at which several services have answered."""
        shared = pa.array(
            sorted(key for key, services in self.services_by_address.items() if len(services) > 1), pa.string()
        )
        is_ambiguous = to_bool_array(pc.or_(addresses.is_null(), pc.is_in(addresses, shared)))
        if len(shared):
            loopback_keys = pc.binary_join_element_wise(callers, addresses, _SPACE)
            is_ambiguous |= to_bool_array(pc.is_in(loopback_keys, shared, skip_nulls=True))
        return is_ambiguous


def make_address_key(caller: str, address: str | None) -> str | None:
    """Return the key of an address (``host:port``): the address of a loopback interface is one per caller."""
    if address is None:
        return None
    host = address.rpartition(":")[0] or address
    return f"{caller} {address}" if is_loopback(host) or is_loopback(address) else address


def find_answers(callers: pa.Array, callees: pa.Array, addresses: pa.Array) -> dict[str, frozenset[str]]:
    """Return the services that answered at each address, from the answered attempts."""
    answers: dict[str, frozenset[str]] = {}
    columns = [callers, callees, addresses]
    distinct = find_distinct_rows(columns)
    for caller, callee, address in zip(*(column.take(distinct).to_pylist() for column in columns), strict=True):
        key = make_address_key(caller, address)
        if key is not None:
            answers[key] = answers.get(key, frozenset()) | {callee}
    return answers


def find_name_rows(spans: SpanBatch, nesting: Nesting, exit_rows: IntArray) -> IntArray:
    """Return, for each exit span, the span that names its callee: the outermost wrapper span that names a peer.

    The exit span itself is returned if none does, and `MISSING_ROW` for `MISSING_ROW`.
    """
    rows = exit_rows.copy()
    wrapped = np.flatnonzero((exit_rows != MISSING_ROW) & (nesting.wrappers[exit_rows] != MISSING_ROW))
    if len(wrapped):
        names_peer = np.logical_or.reduce([to_bool_array(spans.column(name).is_valid()) for name in _PEER_COLUMNS])
        for position in wrapped.tolist():
            naming = [row for row in nesting.list_wrappers(int(exit_rows[position])) if names_peer[row]]
            if naming:
                rows[position] = naming[-1]
    return rows


def name_callees(
    spans: SpanBatch,
    pairs: SpanPairs,
    protocol: IntArray,
    server_services: pa.Array,
    callers: pa.Array,
    name_rows: pa.Array,
    known: KnownPeers,
) -> pa.Array:
    """Return the callee of each attempt."""
    is_unanswered = pairs.callee_rows == MISSING_ROW
    unanswered = np.flatnonzero(is_unanswered)
    if not len(unanswered):
        return server_services
    rows = pa.array(unanswered)
    is_open = is_unanswered & known.find_ambiguous(callers, spans.column("address").take(name_rows))
    same_target = _find_same_target_services(spans, pairs, protocol, server_services, is_open)
    names = _name_peers(spans, name_rows.take(rows), callers.take(rows), same_target.take(rows), known)
    positions = np.full(len(server_services), MISSING_ROW)
    positions[unanswered] = np.arange(len(unanswered))
    return pc.coalesce(server_services, names.take(pa.array(positions, mask=positions == MISSING_ROW)))


def _name_peers(
    spans: SpanBatch, name_rows: pa.Array, callers: pa.Array, same_target_services: pa.Array, known: KnownPeers
) -> pa.Array:
    """Return the callee of each unanswered attempt, or ``unknown``.

    `same_target_services` are the services that answered at the same target, null where none or several did.
    """
    columns = {name: spans.column(name).take(name_rows) for name in (*_PEER_COLUMNS, "address")}
    addresses = columns["address"]
    learned: list[str | None] = [None] * len(callers)
    known_addresses = pa.array(sorted({key.rpartition(" ")[2] for key in known.services_by_address}), pa.string())
    positions = np.flatnonzero(to_bool_array(pc.is_in(addresses, known_addresses, skip_nulls=True)))
    rows = pa.array(positions)
    for position, caller, address in zip(
        positions.tolist(), callers.take(rows).to_pylist(), addresses.take(rows).to_pylist(), strict=True
    ):
        learned[position] = known.find_service(make_address_key(caller, address))
    host = columns["server_address"]
    label = pc.list_element(pc.split_pattern(host, ".", max_splits=1), _FIRST_INDEX)
    is_known = pc.is_in(label, pa.array(known.services, pa.string()))
    return pc.coalesce(
        columns["peer_name"],
        same_target_services,
        pa.array(learned, pa.string()),
        columns["system"],
        pc.if_else(is_known, label, pa.scalar(None, pa.string())),
        host,
        columns["gen_ai_provider"],
        pa.scalar(UNKNOWN_PEER, pa.string()),
    )


def _find_same_target_services(
    spans: SpanBatch, pairs: SpanPairs, protocol: IntArray, server_services: pa.Array, is_open: BoolArray
) -> pa.Array:
    """Return the service that answered the same caller at the same target in the same trace, or null.

    `is_open` marks the attempts that need it: those without an answer whose address names no single service.
    """
    traces, exit_rows = spans.index.trace_indices[pairs.caller_rows], pairs.exit_rows
    is_answered = (pairs.callee_rows != MISSING_ROW) & (exit_rows != MISSING_ROW)
    # most databases never send spans
    is_database = protocol == PROTOCOLS.index("db")
    is_open = is_open & (~is_database | np.isin(traces, np.unique(traces[is_database & is_answered])))
    involved = np.flatnonzero((is_open | is_answered) & np.isin(traces, np.unique(traces[is_open])))
    services: defaultdict[tuple[int, int, int, str, str], set[str]] = defaultdict(set)
    keys = []
    for trace, caller, index, exit_row, server_row, name in zip(
        traces[involved].tolist(),
        spans.services[exit_rows[involved]].tolist(),
        protocol[involved].tolist(),
        exit_rows[involved].tolist(),
        pairs.callee_rows[involved].tolist(),
        server_services.take(pa.array(involved)).to_pylist(),
        strict=True,
    ):
        identity = identify_request(spans, exit_row, server_row, PROTOCOLS[index])
        keys.append((trace, caller, index, identity.address, identity.target))
        if name is not None:
            services[keys[-1]].add(name)
    found: list[str | None] = [None] * len(exit_rows)
    for position, key in zip(involved.tolist(), keys, strict=True):
        found[position] = next(iter(services[key])) if len(services[key]) == 1 else None
    return pa.array(found, pa.string())
