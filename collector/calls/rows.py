"""Lays out what was derived, as rows of the store's tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.logical_calls import LinkedAttempt, LogicalCall
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.calls.topology import Topology

# The name of a table, and rows for it.
TableRows: TypeAlias = tuple[str, pa.Table]
# what exchanges and calls have in common with what they are written from
_COMMON_COLUMNS: Final = (
    "trace_id", "shape", "caller", "callee", "operation", "protocol", "async", "caller_entry", "callee_entry",
    "client_key", "server_key", "lag_ns", "definite",
)  # fmt: skip
_ONE, _ZERO, _FALSE = pa.scalar(1, pa.int64()), pa.scalar(0, pa.int64()), pa.scalar(False, pa.bool_())


def build_trace_rows(spans: SpanBatch) -> TableRows:
    """Say where the spans of each trace are."""
    of_trace = spans.index.trace_indices
    trace_ids = spans.index.trace_ids
    first, last = np.full(len(trace_ids), spans.keys.max(initial=0)), np.zeros(len(trace_ids), np.int64)
    np.minimum.at(first, of_trace, spans.keys)
    np.maximum.at(last, of_trace, spans.keys)
    dirty = np.zeros(len(trace_ids), np.bool_)
    dirty[of_trace[spans.dirty]] = True
    rows = pa.table({"trace_id": trace_ids, "first_key": first, "last_key": last})
    return "traces", rows.filter(pa.array(dirty))


def build_topology_rows(spans: SpanBatch, topology: Topology) -> TableRows:
    """Say where spans stand."""
    rows = pa.table(
        {
            **{name: spans.column(name) for name in ("trace_id", "span_key", "service", "name", "start_ns", "end_ns")},
            "resource_key": spans.column("resource_key"),
            "kind": spans.column("kind_sent"),
            "parent_key": spans.take_keys(topology.parents),
            "orphan": topology.is_orphan,
            "entry_key": spans.take_keys(topology.entries),
            "is_entry": topology.is_entry,
            "definite": topology.is_definite,
            "depth": topology.depths,
            "error": spans.errors,
        }
    )
    return "topology", rows.filter(spans.column("dirty"))


def build_continuation_rows(spans: SpanBatch, continuations: list[tuple[int, int]]) -> TableRows:
    """Say which requests, by rows of their entry spans, are continued by which."""
    rows = np.array([pair for pair in continuations if spans.dirty[pair[0]]], np.int64).reshape(-1, 2)
    entries, continued = rows[:, 0], rows[:, 1]
    table = pa.table(
        {
            "trace_id": spans.column("trace_id").take(pa.array(entries)),
            "entry_key": spans.keys[entries],
            "continued_key": spans.keys[continued],
        }
    )
    return "continuations", table


def build_attempt_and_call_rows(
    attempt_table: pa.Table, attempts: list[LinkedAttempt], calls: list[LogicalCall]
) -> Iterator[TableRows]:
    """Lay out exchanges and calls; an exchange that is not among `attempts` is a call of one."""
    alone = attempt_table["dirty"].to_numpy().copy()
    alone[[each.candidate.row for each in attempts]] = False
    singles = attempt_table.filter(pa.array(alone))
    keys = singles["attempt_key"]
    one, zero, never = (pa.repeat(value, len(singles)) for value in (_ONE, _ZERO, _FALSE))
    yield "attempts", _build_attempt_table(singles, keys, one, zero, never)
    yield "calls", _build_call_table(singles, keys, one, zero, singles["start_ns"], singles["end_ns"])
    if not attempts:
        return
    tried = attempt_table.take(pa.array([each.candidate.row for each in attempts]))
    names = ("call_key", "number", "tier", "arrived")
    of_attempts = [pa.array([getattr(each, name) for each in attempts]) for name in names]
    yield "attempts", _build_attempt_table(tried, *of_attempts).filter(tried["dirty"])
    lasts = attempt_table.take(pa.array([each.last.row for each in calls]))
    of_calls = [
        pa.array([getattr(each, name) for each in calls])
        for name in ("call_key", "attempts", "tier", "start_ns", "end_ns")
    ]
    yield "calls", _build_call_table(lasts, *of_calls).filter(lasts["dirty"])


def _build_attempt_table(
    rows: pa.Table, call_keys: pa.Array, numbers: pa.Array, tiers: pa.Array, arrived: pa.Array
) -> pa.Table:
    """Lay out exchanges; of those that `arrived`, the callee alone has seen how they went."""
    seen = {
        name: pc.if_else(arrived, rows[f"server_{name}"], rows[name])
        for name in ("start_ns", "end_ns", "status", "error", "retryable")
    }
    return pa.table(
        {
            **{name: rows[name] for name in (*_COMMON_COLUMNS, "attempt_key", "address")},
            **seen,
            "call_key": call_keys,
            "attempt": numbers,
            "tier": tiers,
            "duration_ns": pc.subtract(seen["end_ns"], seen["start_ns"]),
            "network_ns": pc.if_else(arrived, pa.scalar(None, pa.int64()), rows["network_ns"]),
            "arrived": arrived,
        }
    )


def _build_call_table(
    rows: pa.Table, call_keys: pa.Array, attempts: pa.Array, tiers: pa.Array, start_ns: pa.Array, end_ns: pa.Array
) -> pa.Table:
    """Lay out calls, by their last attempts."""
    return pa.table(
        {
            **{name: rows[name] for name in (*_COMMON_COLUMNS, "status", "error", "network_ns")},
            "call_key": call_keys,
            "attempts": attempts,
            "tier": tiers,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "duration_ns": pc.subtract(end_ns, start_ns),
            "failed": pc.or_(rows["error"], rows["retryable"]),
        }
    )
