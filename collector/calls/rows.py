"""Rows of the derived tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.logical_calls import LinkedAttempt, LogicalCall
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.calls.topology import Topology

# The name of a table, and rows to insert.
TableRows: TypeAlias = tuple[str, pa.Table]
# columns that ``attempts`` and ``calls`` copy unchanged
_COMMON_COLUMNS: Final = (
    "trace_id", "shape", "caller", "callee", "operation", "protocol", "async", "caller_entry", "callee_entry",
    "client_key", "server_key", "lag_ns", "definite",
)  # fmt: skip
_ONE, _ZERO, _FALSE = pa.scalar(1, pa.int64()), pa.scalar(0, pa.int64()), pa.scalar(False, pa.bool_())


def build_trace_rows(spans: SpanBatch) -> TableRows:
    """Return the range of span keys of each trace."""
    trace_indices = spans.index.trace_indices
    trace_ids = spans.index.trace_ids
    first, last = np.full(len(trace_ids), spans.keys.max(initial=0)), np.zeros(len(trace_ids), np.int64)
    np.minimum.at(first, trace_indices, spans.keys)
    np.maximum.at(last, trace_indices, spans.keys)
    dirty = np.zeros(len(trace_ids), np.bool_)
    dirty[trace_indices[spans.dirty]] = True
    rows = pa.table({"trace_id": trace_ids, "first_key": first, "last_key": last})
    return "traces", rows.filter(pa.array(dirty))


def build_topology_rows(spans: SpanBatch, topology: Topology) -> TableRows:
    """Return the position of each span in its trace."""
    rows = pa.table(
        {
            **{name: spans.column(name) for name in ("trace_id", "span_key", "service", "name", "start_ns", "end_ns")},
            "resource_key": spans.column("resource_key"),
            "kind": spans.column("exported_kind"),
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
    """Return which entry spans continue which, from pairs of rows."""
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
    """Yield rows of attempts and calls; an attempt that is not in `attempts` is a call of its own."""
    is_single = attempt_table["dirty"].to_numpy().copy()
    is_single[[each.candidate.row for each in attempts]] = False
    single_attempts = attempt_table.filter(pa.array(is_single))
    keys = single_attempts["attempt_key"]
    one, zero, never = (pa.repeat(value, len(single_attempts)) for value in (_ONE, _ZERO, _FALSE))
    yield "attempts", _build_attempt_table(single_attempts, keys, one, zero, never)
    yield (
        "calls",
        _build_call_table(single_attempts, keys, one, zero, single_attempts["start_ns"], single_attempts["end_ns"]),
    )
    if not attempts:
        return
    linked_attempts = attempt_table.take(pa.array([each.candidate.row for each in attempts]))
    names = ("call_key", "number", "tier", "arrived")
    attempt_columns = [pa.array([getattr(each, name) for each in attempts]) for name in names]
    yield "attempts", _build_attempt_table(linked_attempts, *attempt_columns).filter(linked_attempts["dirty"])
    last_attempts = attempt_table.take(pa.array([each.last.row for each in calls]))
    call_columns = [
        pa.array([getattr(each, name) for each in calls])
        for name in ("call_key", "attempts", "tier", "start_ns", "end_ns")
    ]
    yield "calls", _build_call_table(last_attempts, *call_columns).filter(last_attempts["dirty"])


def _build_attempt_table(
    rows: pa.Table, call_keys: pa.Array, numbers: pa.Array, tiers: pa.Array, arrived: pa.Array
) -> pa.Table:
    """Return rows of ``attempts``; the times and status of an `arrived` attempt are those of the callee."""
    observed = {
        name: pc.if_else(arrived, rows[f"server_{name}"], rows[name])
        for name in ("start_ns", "end_ns", "status", "error", "retryable")
    }
    return pa.table(
        {
            **{name: rows[name] for name in (*_COMMON_COLUMNS, "attempt_key", "address")},
            **observed,
            "call_key": call_keys,
            "attempt": numbers,
            "tier": tiers,
            "duration_ns": pc.subtract(observed["end_ns"], observed["start_ns"]),
            "network_ns": pc.if_else(arrived, pa.scalar(None, pa.int64()), rows["network_ns"]),
            "arrived": arrived,
        }
    )


def _build_call_table(
    rows: pa.Table, call_keys: pa.Array, attempts: pa.Array, tiers: pa.Array, start_ns: pa.Array, end_ns: pa.Array
) -> pa.Table:
    """Return rows of ``calls``, from the last attempt of each."""
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
