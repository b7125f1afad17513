"""Lays out what was derived, as rows of the store's tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.attempts import Attempt, Call
from spanproof.collector.fresh import Fresh
from spanproof.collector.places import Tree

# The name of a table, and rows for it.
Rows: TypeAlias = tuple[str, pa.Table]
# what exchanges and calls have in common with what they are written from
_COMMON: Final = (
    "trace_id", "shape", "caller", "callee", "operation", "protocol", "async", "caller_entry", "callee_entry",
    "client_key", "server_key", "lag_ns", "definite",
)  # fmt: skip
_ONE, _ZERO, _NEVER = pa.scalar(1, pa.int64()), pa.scalar(0, pa.int64()), pa.scalar(False, pa.bool_())


def lay_out_traces(spans: Fresh) -> Rows:
    """Say where the spans of each trace are."""
    of_trace = spans.ids.traces
    trace_ids = spans.ids.trace_ids
    first, last = np.full(len(trace_ids), spans.keys.max(initial=0)), np.zeros(len(trace_ids), np.int64)
    np.minimum.at(first, of_trace, spans.keys)
    np.maximum.at(last, of_trace, spans.keys)
    dirty = np.zeros(len(trace_ids), np.bool_)
    dirty[of_trace[spans.dirty]] = True
    rows = pa.table({"trace_id": trace_ids, "first_key": first, "last_key": last})
    return "traces", rows.filter(pa.array(dirty))


def lay_out_tree(spans: Fresh, tree: Tree) -> Rows:
    """Say where spans stand."""
    rows = pa.table(
        {
            **{name: spans.column(name) for name in ("trace_id", "span_key", "service", "name", "start_ns", "end_ns")},
            "resource_key": spans.column("resource_key"),
            "kind": spans.column("kind_sent"),
            "parent_key": spans.take_keys(tree.parents),
            "orphan": tree.orphan,
            "entry_key": spans.take_keys(tree.entries),
            "is_entry": tree.is_entry,
            "definite": tree.definite,
            "depth": tree.depth,
            "error": spans.errors,
        }
    )
    return "tree", rows.filter(spans.column("dirty"))


def lay_out_continued(spans: Fresh, found: list[tuple[int, int]]) -> Rows:
    """Say which requests, by rows of their entry spans, are continued by which."""
    rows = np.array([pair for pair in found if spans.dirty[pair[0]]], np.int64).reshape(-1, 2)
    entries, continued = rows[:, 0], rows[:, 1]
    table = pa.table(
        {
            "trace_id": spans.column("trace_id").take(pa.array(entries)),
            "entry_key": spans.keys[entries],
            "continued_key": spans.keys[continued],
        }
    )
    return "continuations", table


def lay_out_calls(exchanges: pa.Table, attempts: list[Attempt], calls: list[Call]) -> Iterator[Rows]:
    """Lay out exchanges and calls; an exchange that is not among `attempts` is a call of one."""
    alone = exchanges["dirty"].to_numpy().copy()
    alone[[each.exchange.row for each in attempts]] = False
    singles = exchanges.filter(pa.array(alone))
    keys = singles["exchange_key"]
    one, zero, never = (pa.repeat(value, len(singles)) for value in (_ONE, _ZERO, _NEVER))
    yield "exchanges", _as_exchanges(singles, keys, one, zero, never)
    yield "calls", _as_calls(singles, keys, one, zero, singles["start_ns"], singles["end_ns"])
    if not attempts:
        return
    tried = exchanges.take(pa.array([each.exchange.row for each in attempts]))
    names = ("call_key", "number", "tier", "arrived")
    of_attempts = [pa.array([getattr(each, name) for each in attempts]) for name in names]
    yield "exchanges", _as_exchanges(tried, *of_attempts).filter(tried["dirty"])
    lasts = exchanges.take(pa.array([each.last.row for each in calls]))
    of_calls = [
        pa.array([getattr(each, name) for each in calls])
        for name in ("call_key", "attempts", "tier", "start_ns", "end_ns")
    ]
    yield "calls", _as_calls(lasts, *of_calls).filter(lasts["dirty"])


def _as_exchanges(
    rows: pa.Table, call_keys: pa.Array, numbers: pa.Array, tiers: pa.Array, arrived: pa.Array
) -> pa.Table:
    """Lay out exchanges; of those that `arrived`, the callee alone has seen how they went."""
    seen = {
        name: pc.if_else(arrived, rows[f"server_{name}"], rows[name])
        for name in ("start_ns", "end_ns", "status", "error", "retryable")
    }
    return pa.table(
        {
            **{name: rows[name] for name in (*_COMMON, "exchange_key", "address")},
            **seen,
            "call_key": call_keys,
            "attempt": numbers,
            "tier": tiers,
            "duration_ns": pc.subtract(seen["end_ns"], seen["start_ns"]),
            "network_ns": pc.if_else(arrived, pa.scalar(None, pa.int64()), rows["network_ns"]),
            "arrived": arrived,
        }
    )


def _as_calls(
    rows: pa.Table, call_keys: pa.Array, attempts: pa.Array, tiers: pa.Array, start_ns: pa.Array, end_ns: pa.Array
) -> pa.Table:
    """Lay out calls, by their last attempts."""
    return pa.table(
        {
            **{name: rows[name] for name in (*_COMMON, "status", "error", "network_ns")},
            "call_key": call_keys,
            "attempts": attempts,
            "tier": tiers,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "duration_ns": pc.subtract(end_ns, start_ns),
            "failed": pc.or_(rows["error"], rows["retryable"]),
        }
    )
