"""Writes down what was derived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.attempts import Attempt, Call
from spanproof.collector.columns import execute_with
from spanproof.collector.fresh import Fresh
from spanproof.collector.places import Tree

if TYPE_CHECKING:
    import duckdb

# what exchanges and calls have in common with what they are written from
_COMMON: Final = (
    "trace_id", "shape", "caller", "callee", "operation", "protocol", "async", "caller_entry", "callee_entry",
    "client_key", "server_key", "lag_ns", "definite",
)  # fmt: skip


def write_traces(connection: duckdb.DuckDBPyConnection, spans: Fresh) -> None:
    """Write down where the spans of each trace are."""
    of_trace = spans.ids.traces
    trace_ids = spans.ids.trace_ids
    first, last = np.full(len(trace_ids), spans.keys.max(initial=0)), np.zeros(len(trace_ids), np.int64)
    np.minimum.at(first, of_trace, spans.keys)
    np.maximum.at(last, of_trace, spans.keys)
    dirty = np.zeros(len(trace_ids), np.bool_)
    dirty[of_trace[spans.dirty]] = True
    rows = pa.table({"trace_id": trace_ids, "first_key": first, "last_key": last}).filter(pa.array(dirty))
    _insert(connection, "traces", rows)


def write_tree(connection: duckdb.DuckDBPyConnection, spans: Fresh, tree: Tree) -> None:
    """Write down where spans stand."""
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
    _insert(connection, "tree", rows.filter(spans.column("dirty")))


def write_continued(connection: duckdb.DuckDBPyConnection, spans: Fresh, found: list[tuple[int, int]]) -> None:
    """Write down which requests, by rows of their entry spans, are continued by which."""
    rows = [(row, entry) for row, entry in found if spans.dirty[row]]
    if not rows:
        return
    entries, continued = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    table = pa.table(
        {
            "trace_id": spans.column("trace_id").take(pa.array(entries)),
            "entry_key": spans.keys[entries],
            "continued_key": spans.keys[continued],
        }
    )
    _insert(connection, "continuations", table)


def write_calls(
    connection: duckdb.DuckDBPyConnection, exchanges: pa.Table, attempts: list[Attempt], calls: list[Call]
) -> None:
    """Write down exchanges and calls; an exchange that is not among `attempts` is a call of one."""
    alone = exchanges["dirty"].to_numpy().copy()
    alone[[each.exchange.row for each in attempts]] = False
    singles = exchanges.filter(pa.array(alone))
    keys, one, zero = singles["exchange_key"], _repeat(1, len(singles)), _repeat(0, len(singles))
    never = _repeat(False, len(singles))
    _insert(connection, "exchanges", _as_exchanges(singles, keys, one, zero, never))
    _insert(connection, "calls", _as_calls(singles, keys, one, zero, singles["start_ns"], singles["end_ns"]))
    if not attempts:
        return
    tried = exchanges.take(pa.array([each.exchange.row for each in attempts]))
    names = ("call_key", "number", "tier", "arrived")
    of_attempts = [pa.array([getattr(each, name) for each in attempts]) for name in names]
    _insert(connection, "exchanges", _as_exchanges(tried, *of_attempts).filter(tried["dirty"]))
    lasts = exchanges.take(pa.array([each.last.row for each in calls]))
    of_calls = [
        pa.array([getattr(each, name) for each in calls])
        for name in ("call_key", "attempts", "tier", "start_ns", "end_ns")
    ]
    _insert(connection, "calls", _as_calls(lasts, *of_calls).filter(lasts["dirty"]))


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


def _repeat(value: object, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    if len(rows):
        execute_with(connection, f"INSERT INTO {table} BY NAME FROM rows", rows)
