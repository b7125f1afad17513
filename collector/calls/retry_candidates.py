"""Attempts that may be retries. They are few, so each is an object of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.attempts import BARE, PAIRED
from spanproof.collector.calls.extracted_attributes import ExtractedAttributes
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.storage.arrow_columns import IntArray, to_bool_array

# typed scalars, as in span_batch.py
_ONE, _PAIRED = pa.scalar(1, pa.int32()), pa.scalar(PAIRED, pa.string())


@dataclass(frozen=True, slots=True)
class RetryCandidate:
    """The data of an attempt that decide whether it is a retry; `row` is its row in the table of attempts."""

    row: int
    attempt_key: int
    trace: int
    shape: str
    callee: str
    operation: str
    asynchronous: bool
    parent_id: int | None
    caller_entry: int | None
    client_key: int | None
    start_ns: int
    end_ns: int
    retryable: bool
    http_outcome: int | None
    resend_count: int  # number of earlier attempts by the span's counter; 0 without one
    server_start_ns: int  # as the callee recorded it, else the caller
    server_end_ns: int
    server_retryable: bool
    method: str | None
    target: str

    def read_times(self, *, at_callee: bool) -> tuple[int, int]:
        """Return start and end, as recorded by the callee or by the caller."""
        return (self.server_start_ns, self.server_end_ns) if at_callee else (self.start_ns, self.end_ns)


_READ_COLUMNS: Final = tuple(
    name for name in RetryCandidate.__dataclass_fields__ if name not in ("row", "trace", "method", "target")
)


def read_retry_candidates(spans: SpanBatch, attempt_table: pa.Table, caller_rows: IntArray) -> list[RetryCandidate]:
    """Return the attempts that may be retries; `caller_rows` has the row of each attempt's caller."""
    rows = _find_candidate_rows(attempt_table, spans.index.trace_indices[caller_rows])
    if not len(rows):
        return []
    candidate_table = attempt_table.take(pa.array(rows))
    columns = {name: candidate_table["async" if name == "asynchronous" else name].to_pylist() for name in _READ_COLUMNS}
    columns["resend_count"] = [count or 0 for count in columns["resend_count"]]
    for time in ("start_ns", "end_ns"):
        columns[f"server_{time}"] = pc.coalesce(candidate_table[f"server_{time}"], candidate_table[time]).to_pylist()
    client_rows = caller_rows[rows]
    attributes = ExtractedAttributes(spans.column("keys").take(client_rows), spans.column("texts").take(client_rows))
    requests = _describe_requests(attributes, spans.column("name").take(client_rows).to_pylist())
    traces = spans.index.trace_indices[client_rows].tolist()
    candidates = []
    for position, (row, (method, target)) in enumerate(zip(rows.tolist(), requests, strict=True)):
        values = {name: column[position] for name, column in columns.items()}
        if values["shape"] == BARE:
            method, target = None, ""
        candidates.append(RetryCandidate(row=row, trace=traces[position], method=method, target=target, **values))
    return candidates


def _find_candidate_rows(attempt_table: pa.Table, traces: IntArray) -> IntArray:
    """Return the rows of attempts that share trace and callee with a sign of a retry.

    A sign of a retry is a retryable failure, a counter of 1 or more, or a second server span of one client span.
    """
    counted = to_bool_array(pc.greater_equal(attempt_table["resend_count"], _ONE))
    client_keys = attempt_table["client_key"].filter(pc.equal(attempt_table["shape"], _PAIRED)).value_counts()
    repeated_keys = client_keys.filter(pc.greater(client_keys.field("counts"), _ONE)).field("values")
    has_sign = (
        to_bool_array(attempt_table["retryable"])
        | counted
        | to_bool_array(pc.is_in(attempt_table["client_key"], repeated_keys))
    )
    callees = attempt_table["callee"].combine_chunks().dictionary_encode().indices.to_numpy()
    groups = traces << 32 | callees
    return np.flatnonzero(np.isin(groups, groups[has_sign])) if has_sign.any() else np.array([], np.int64)


def _describe_requests(attributes: ExtractedAttributes, names: list[str]) -> Iterator[tuple[str | None, str]]:
    """Yield the method and the target of exit spans; attempts of one call have both in common."""
    names_read = (
        "http_method", "rpc_method", "db_system", "db_namespace", "db_statement", "messaging_system", "destination",
        "message_id", "rpc_service", "url", "peer_name", "server_address", "server_port",
    )  # fmt: skip
    for name, *texts in zip(names, *(attributes.read(key).to_pylist() for key in names_read), strict=True):
        values = dict(zip(names_read, texts, strict=True))
        target: tuple[str | None, ...]
        if values["db_system"] is not None:
            target = (
                values["db_system"],
                values["db_namespace"],
                name if values["db_statement"] is None else values["db_statement"],
            )
        elif values["messaging_system"] is not None or values["destination"] is not None:
            target = (values["messaging_system"], values["destination"], values["message_id"], name)
        elif values["rpc_service"] is not None:
            target = (values["rpc_service"], values["rpc_method"])
        elif values["url"] is not None:
            target = (values["http_method"], values["url"])
        else:
            target = (
                name,
                values["server_address"] if values["peer_name"] is None else values["peer_name"],
                values["server_port"],
            )
        method = values["rpc_method"] if values["http_method"] is None else values["http_method"]
        yield method, " ".join(part for part in target if part is not None)
