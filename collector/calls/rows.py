"""Rows of the derived tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.logical_calls import LinkedCalls, LogicalCall
from spanproof.collector.calls.retry_candidates import RetryCandidate
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.topology import Topology

# The name of a table, and rows to insert.
TableRows: TypeAlias = tuple[str, pa.Table]
# columns that ``attempts`` and ``calls`` copy unchanged
_COMMON_COLUMNS: Final = (
    "trace_id", "shape", "caller", "callee", "operation", "protocol", "async", "caller_entry", "callee_entry",
    "client_key", "server_key", "wrapper_key", "outer_wrapper_key", "lag_ns", "over_ns", "definite",
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
            "error": topology.errors,
            "role": topology.kinds,
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


def build_attempt_and_call_rows(attempt_table: pa.Table, linked: LinkedCalls) -> Iterator[TableRows]:
    """Yield rows of the attempts that are not in `linked`, and of their calls.

    Such an attempt is a call by itself. Its call has a row of its own if a wrapper span has the times and the error.
    """
    attempts, _ = linked.joined
    is_single = attempt_table["dirty"].to_numpy().copy()
    is_single[[each.candidate.row for each in attempts]] = False
    single = attempt_table.filter(pa.array(is_single))
    columns = {"attempt": pa.repeat(_ONE, len(single)), "arrived": pa.repeat(_FALSE, len(single))}
    is_call = pc.invert(single["has_sole_wrapper"])
    yield "attempts", _build_attempt_table(single, {**_join_alone(single), **columns, "is_call": is_call})
    wrapped = single.filter(single["has_sole_wrapper"])
    columns = {
        "attempts": pa.repeat(_ONE, len(wrapped)),
        "kept_apart": pa.nulls(len(wrapped), pa.string()),
        "start_ns": wrapped["wrapper_start_ns"],
        "end_ns": wrapped["wrapper_end_ns"],
        "error": wrapped["wrapper_error"],
        "failed": pc.or_(wrapped["wrapper_error"], wrapped["no_response"]),
    }
    yield "combined_calls", _build_call_table(wrapped, {**_join_alone(wrapped), **columns})


def _join_alone(attempts: pa.Table) -> dict[str, Any]:
    """Return the columns of attempts that tie them to a call, where each is a call by itself."""
    return {
        "call_key": attempts["attempt_key"],
        "tier": pa.repeat(_ZERO, len(attempts)),
        "doubt": pa.nulls(len(attempts), pa.string()),
    }


def build_linked_rows(
    spans: SpanBatch, topology: Topology, attempt_table: pa.Table, linked: LinkedCalls
) -> Iterator[TableRows]:
    """Yield rows of the calls of several attempts, and of the same attempts read as separate calls where in doubt."""
    for (attempts, calls), attempts_name, calls_name in (
        (linked.joined, "attempts", "combined_calls"),
        (linked.apart, "separate_attempts", "separate_calls"),
    ):
        if not attempts:
            continue
        doubts = {call.call_key: call.doubt for call in calls}
        answered = {each.call_key: each.candidate.callee for each in attempts if each.candidate.is_answered}
        rows = attempt_table.take(pa.array([each.candidate.row for each in attempts]))
        columns: dict[str, Any] = {
            name: pa.array([getattr(each, name) for each in attempts], type_)
            for name, type_ in (
                ("call_key", pa.int64()), ("tier", pa.int64()), ("arrived", pa.bool_()), ("start_ns", pa.int64()),
                ("end_ns", pa.int64()), ("retryable", pa.bool_()), ("failed", pa.bool_()), ("responded", pa.bool_()),
            )
        }  # fmt: skip
        columns["callee"] = _name_callees([(each.candidate, each.call_key) for each in attempts], answered)
        columns["attempt"] = pa.array([each.number for each in attempts], pa.int64())
        columns["doubt"] = pa.array([doubts[each.call_key] for each in attempts], pa.string())
        arrived = columns["arrived"]
        for name in ("status", "error"):
            server_name = "server_status" if name == "status" else "server_failed"
            columns[name] = pc.if_else(arrived, rows[server_name], rows[name])
        columns["network_ns"] = _null_where(arrived, rows["network_ns"])
        columns |= _take_from_first(attempt_table, [each.first for each in attempts])
        columns["is_call"] = pa.repeat(_FALSE, len(attempts))
        yield attempts_name, _build_attempt_table(rows, columns).filter(rows["dirty"])
        yield calls_name, _build_linked_call_table(spans, topology, attempt_table, calls, answered)


def _build_linked_call_table(
    spans: SpanBatch,
    topology: Topology,
    attempt_table: pa.Table,
    calls: list[LogicalCall],
    answered: Mapping[int, str],
) -> pa.Table:
    rows = attempt_table.take(pa.array([each.last.row for each in calls]))
    columns: dict[str, Any] = {
        name: pa.array([getattr(each, name) for each in calls], type_)
        for name, type_ in (
            ("call_key", pa.int64()), ("attempts", pa.int64()), ("tier", pa.int64()), ("doubt", pa.string()),
            ("kept_apart", pa.string()), ("start_ns", pa.int64()), ("end_ns", pa.int64()),
        )
    }  # fmt: skip
    columns["callee"] = _name_callees([(each.last, each.call_key) for each in calls], answered)
    wrappers = pa.array([each.wrapper for each in calls], pa.int64())
    for name in ("start_ns", "end_ns"):
        wrapper_times = spans.column(name).take(wrappers)
        columns[name] = pc.if_else(wrappers.is_valid(), wrapper_times, columns[name])
    errors = pa.array(topology.errors).take(wrappers)
    columns["error"] = pc.coalesce(errors, rows["error"])
    ends_with_arrival = pa.array([each.ends_with_arrival for each in calls])
    no_response = pc.if_else(ends_with_arrival, pa.array([each.is_cut for each in calls]), rows["no_response"])
    columns["failed"] = pc.or_(columns["error"], no_response)
    columns["network_ns"] = _null_where(ends_with_arrival, rows["network_ns"])
    columns |= _take_from_first(attempt_table, [each.first for each in calls])
    return _build_call_table(rows, columns).filter(rows["dirty"])


def _name_callees(attempts: list[tuple[RetryCandidate, int]], answered: Mapping[int, str]) -> pa.Array:
    """Return the callee of each attempt, given with the key of its call.

    The name of an attempt that nobody answered is provisional: the service that answered another attempt of its call,
    `answered` by the key of the call, is preferred, except to a name that its span gives it.
    """
    names = [
        attempt.callee if attempt.is_answered or attempt.names_callee else answered.get(call_key, attempt.callee)
        for attempt, call_key in attempts
    ]
    return pa.array(names, pa.string())


def _null_where(condition: pa.Array | list[bool], values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pa.array(condition, pa.bool_()), pa.scalar(None, values.type), values)


def _take_from_first(attempt_table: pa.Table, firsts: list[RetryCandidate]) -> dict[str, pa.ChunkedArray]:
    """Return the columns that a call, and each of its attempts, has from the first attempt: who called."""
    rows = attempt_table.take(pa.array([each.row for each in firsts]))
    return {name: rows[name] for name in ("trace_id", "caller", "caller_entry")}


def _build_attempt_table(rows: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """Return rows of ``attempts``: `columns`, and the others from `rows`."""
    names = (
        *_COMMON_COLUMNS, "attempt_key", "address", "start_ns", "end_ns", "status", "error", "failed", "responded",
        "retryable", "network_ns",
    )  # fmt: skip
    merged = {**{name: rows[name] for name in names}, **columns}
    return pa.table({**merged, "duration_ns": pc.subtract(merged["end_ns"], merged["start_ns"])})


def _build_call_table(rows: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """Return rows of ``combined_calls``: `columns`, and the others from the last attempt of each."""
    merged = {
        **{name: rows[name] for name in (*_COMMON_COLUMNS, "status", "network_ns", "retryable")},
        **columns,
    }
    return pa.table({**merged, "duration_ns": pc.subtract(merged["end_ns"], merged["start_ns"])})
