"""Attempts that may be retries. They are few, so each is an object of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.calls.request_identity import RequestIdentity, identify_request
from spanproof.collector.calls.span_pairs import MESSAGE, PAIRED, SpanPairs
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array, to_int_array
from spanproof.collector.topology.nesting import Nesting
from spanproof.collector.topology.span_batch import SpanBatch

# typed scalars, as in span_errors.py
_ONE, _PAIRED, _MESSAGE = pa.scalar(1, pa.int32()), pa.scalar(PAIRED, pa.string()), pa.scalar(MESSAGE, pa.string())


class RetryCandidate(Struct, frozen=True):
    """The data of an attempt that decide whether it is a retry; `row` is its row in the table of attempts.

    An unfinished span has no `end_ns`.
    """

    row: int
    attempt_key: int
    trace: int
    shape: str
    is_async: bool
    protocol: str
    caller: str
    callee: str
    names_callee: bool  # its span has an attribute for just that
    operation: str
    logical_parent: int  # row of the span that all attempts of its call share
    wrappers: tuple[int, ...]  # rows of the wrapper spans around it, the nearest first
    exit_row: int
    client_key: int | None
    server_key: int | None
    start_ns: int
    end_ns: int | None
    responded: bool | None
    failed: bool
    retryable: bool
    http_outcome: int | None
    rpc_outcome: int | None
    rpc_attempt: bool
    attempts_before: int | None  # by the span's counter
    counts_redirects: bool | None
    is_request: bool | None  # a SERVER span below a CLIENT span
    server_start_ns: int | None
    server_end_ns: int | None
    server_retryable: bool
    server_failed: bool
    message_key: str | None
    read_identity: Callable[[], RequestIdentity]  # reads it once, as few candidates need it

    @property
    def identity(self) -> RequestIdentity:
        """What it asked for."""
        return self.read_identity()

    @property
    def is_answered(self) -> bool:
        """Whether the callee sent a span."""
        return self.server_key is not None

    @property
    def arrived_ns(self) -> int:
        """When the callee started on it, or else when the caller did."""
        return self.start_ns if self.server_start_ns is None else self.server_start_ns

    @property
    def over_ns(self) -> int | None:
        """When it was over, or None if it never ended.

        If a response is recorded, it was over when the server span had ended: some clients end their span only when the
        body of the response is closed.
        """
        ends = [self.end_ns, self.server_end_ns if self.responded else None]
        return min((end for end in ends if end is not None), default=None)


class _IdentityReader:
    """Reads what an attempt asked for when it is called first."""

    __slots__ = ("_arguments", "_identity")

    def __init__(self, spans: SpanBatch, exit_row: int, server_row: int, protocol: str) -> None:
        self._arguments = (spans, exit_row, server_row, protocol)
        self._identity: RequestIdentity | None = None

    def __call__(self) -> RequestIdentity:
        if self._identity is None:
            self._identity = identify_request(*self._arguments)
        return self._identity


_COMPUTED: Final = (
    "row", "trace", "is_async", "logical_parent", "wrappers", "exit_row", "read_identity",
)  # fmt: skip
_READ_COLUMNS: Final = tuple(name for name in RetryCandidate.__struct_fields__ if name not in _COMPUTED)


def read_retry_candidates(
    spans: SpanBatch, nesting: Nesting, pairs: SpanPairs, attempt_table: pa.Table
) -> list[RetryCandidate]:
    """Return the attempts that may be retries: those that share a logical parent or a message with a sign of one."""
    has_own_sign = _find_own_signs(attempt_table)
    has_sign = to_bool_array(attempt_table["retryable"].combine_chunks()) | has_own_sign
    if not has_sign.any():
        return []
    exit_rows = pairs.exit_rows
    # the parent of an exit span is above it; a bare entry span has its caller as parent
    above = np.where(exit_rows == MISSING_ROW, pairs.caller_rows, nesting.topology.parents[exit_rows])
    logical_parents, is_missing = nesting.find_logical_parents(
        np.where(exit_rows == MISSING_ROW, pairs.caller_rows, exit_rows)
    )
    # bare calls have a caller, so that those without a span above them have exit spans
    parents = np.where(above == MISSING_ROW, exit_rows, logical_parents[above])
    below_missing = np.flatnonzero((above == MISSING_ROW) | is_missing[above])
    parents[below_missing] = _number_missing_parents(spans, parents[below_missing])
    rows = np.flatnonzero(_share_group(parents, has_sign) | _share_message(attempt_table, has_sign) | has_own_sign)
    table = attempt_table.take(pa.array(rows))
    columns = {name: table[name].to_pylist() for name in _READ_COLUMNS}
    candidates = []
    traces = spans.index.trace_indices[pairs.caller_rows[rows]].tolist()
    are_async = table["async"].to_pylist()
    for position, row in enumerate(rows.tolist()):
        values = {name: column[position] for name, column in columns.items()}
        exit_row = int(exit_rows[row])
        candidates.append(
            RetryCandidate(
                row=row,
                trace=traces[position],
                is_async=are_async[position],
                logical_parent=int(parents[row]),
                wrappers=() if exit_row == MISSING_ROW else tuple(nesting.list_wrappers(exit_row)),
                exit_row=exit_row,
                read_identity=_IdentityReader(spans, exit_row, int(pairs.callee_rows[row]), values["protocol"]),
                **values,
            )
        )
    return candidates


def _number_missing_parents(spans: SpanBatch, rows: IntArray) -> IntArray:
    """Return a negative number for the missing parent of each span.

    Spans that name the same one share it; a root shares its number only with other attempts below itself.
    """
    parent_ids = spans.column("parent_id").take(pa.array(rows))
    ids = to_int_array(parent_ids.dictionary_encode().indices)
    count = len(spans) + 1
    named = -2 - count - (spans.index.trace_indices[rows] * (len(rows) + 1) + ids)
    numbers: IntArray = np.where(ids == MISSING_ROW, -2 - rows, named)
    return numbers


def _find_own_signs(attempt_table: pa.Table) -> BoolArray:
    """Return which attempts have a sign of a retry that needs no other attempt below the same parent.

    A sign is a counter of 1 or more, a span of gRPC's for a single attempt, a second server span of one client span,
    or a second delivery of one message.
    """
    is_paired = pc.equal(attempt_table["shape"], _PAIRED)
    sign: BoolArray = (
        to_bool_array(pc.greater_equal(attempt_table["attempts_before"], _ONE).combine_chunks())
        | to_bool_array(attempt_table["rpc_attempt"].combine_chunks())
        | _is_repeated(pc.if_else(is_paired, attempt_table["client_key"], pa.scalar(None, pa.int64())))
        | _is_repeated(attempt_table["message_key"])
    )
    return sign


def _is_repeated(values: pa.ChunkedArray) -> BoolArray:
    counts = values.drop_null().value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), pa.scalar(1, pa.int64()))).field("values")
    if not len(repeated):
        return np.zeros(len(values), np.bool_)
    return to_bool_array(pc.is_in(values, repeated, skip_nulls=True).combine_chunks())


def _share_group(groups: IntArray, has_sign: BoolArray) -> BoolArray:
    """Return which attempts share a logical parent with another one, of which any has a sign."""
    numbers, counts = np.unique(groups, return_counts=True)
    return np.isin(groups, np.intersect1d(groups[has_sign], numbers[counts > 1]))


def _share_message(attempt_table: pa.Table, has_sign: BoolArray) -> BoolArray:
    keys = attempt_table["message_key"].combine_chunks()
    if keys.null_count == len(keys):
        return np.zeros(len(keys), np.bool_)
    return to_bool_array(pc.is_in(keys, keys.filter(pa.array(has_sign)), skip_nulls=True))


def count_rpc_attempts(group: list[RetryCandidate]) -> dict[int, int]:
    """Return the number of earlier attempts of gRPC's spans for single attempts, by their order below one span."""
    counts: dict[int, int] = {}
    attempts = [each for each in group if each.rpc_attempt]
    for siblings in group_by(attempts, lambda each: each.wrappers[:1]):
        siblings.sort(key=lambda each: (each.start_ns, each.attempt_key))
        for number, each in enumerate(siblings):
            counts[each.attempt_key] = number if each.attempts_before is None else each.attempts_before
    return counts


def group_by(
    candidates: Iterable[RetryCandidate], by: Callable[[RetryCandidate], Hashable]
) -> list[list[RetryCandidate]]:
    """Return the candidates with the same key, in order."""
    groups: dict[Hashable, list[RetryCandidate]] = {}
    for each in candidates:
        groups.setdefault(by(each), []).append(each)
    return list(groups.values())
