"""The span whose counter counts the attempts before an attempt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array
from spanproof.collector.topology.nesting import Nesting
from spanproof.collector.topology.span_batch import SpanBatch

_MAX_HOPS = 4  # sidecars between a caller and a callee


def find_counter_rows(
    spans: SpanBatch,
    nesting: Nesting,
    exit_rows: IntArray,
    callee_rows: IntArray,
    is_message: BoolArray,
    are_proxies: BoolArray,
) -> IntArray:
    """Return, for each attempt, the row of the span whose counter counts; `MISSING_ROW` if no span has one.

    The consumer span of a delivery decides, and otherwise the exit span, its wrapper spans, the sidecars on the way,
    and the callee's entry span, in this order. The counter of a wrapper span is about the last attempt inside.
    """
    has_counter = to_bool_array(spans.column("attempts_before").is_valid())
    found = np.full(len(exit_rows), MISSING_ROW)
    if not has_counter.any():
        return found
    candidates = [
        np.where(is_message, callee_rows, MISSING_ROW),
        exit_rows,
        _find_counting_wrappers(spans, nesting, exit_rows, has_counter),
        *_list_sidecars(spans, callee_rows, are_proxies),
        callee_rows,
    ]
    for rows in candidates:
        chosen = np.flatnonzero((found == MISSING_ROW) & (rows != MISSING_ROW))
        chosen = chosen[has_counter[rows[chosen]]]
        found[chosen] = rows[chosen]
    return found


def _find_counting_wrappers(
    spans: SpanBatch, nesting: Nesting, exit_rows: IntArray, has_counter: BoolArray
) -> IntArray:
    """Return the nearest wrapper span with a counter around each exit span that is the last one inside it."""
    found = np.full(len(exit_rows), MISSING_ROW)
    counting = np.flatnonzero(nesting.is_wrapper & has_counter)
    if not len(counting):
        return found
    starts = spans.column("start_ns").to_numpy()
    last: dict[int, int] = {}
    wrapped = np.flatnonzero(nesting.is_innermost_exit & (nesting.wrappers != MISSING_ROW))
    for row in wrapped[np.argsort(starts[wrapped], kind="stable")].tolist():
        for wrapper in nesting.list_wrappers(row):
            last[wrapper] = row
    wrapper_of = {
        row: next(each for each in nesting.list_wrappers(row) if has_counter[each] and last[each] == row)
        for row in {last[wrapper] for wrapper in counting.tolist()}
    }
    for position in np.flatnonzero(np.isin(exit_rows, list(wrapper_of))).tolist():
        found[position] = wrapper_of[int(exit_rows[position])]
    return found


def _list_sidecars(spans: SpanBatch, callee_rows: IntArray, are_proxies: BoolArray) -> Iterator[IntArray]:
    """Yield the spans of sidecars between the callees and their callers, the nearest to the callee first."""
    hop = callee_rows
    for _ in range(_MAX_HOPS if are_proxies.any() else 0):
        above = np.where(hop == MISSING_ROW, MISSING_ROW, spans.declared_parents[hop])
        hop = np.where((above != MISSING_ROW) & are_proxies[above], above, MISSING_ROW)
        yield hop
