"""The exchanges of which some may be attempts at the same: few, so each is an object of its own."""

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

# typed, as in fresh.py
_ONE, _PAIRED = pa.scalar(1, pa.int32()), pa.scalar(PAIRED, pa.string())


@dataclass(frozen=True, slots=True)
class RetryCandidate:
    """What of an exchange says whether it is a further attempt; `row` is its place in the table of all."""

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
    answer: int | None
    resend_count: int  # how often it was tried before, as a counter says; 0 without one
    server_start_ns: int  # as the callee saw it, or else the caller
    server_end_ns: int
    server_retryable: bool
    method: str | None
    target: str

    def read_times(self, *, at_callee: bool) -> tuple[int, int]:
        """Return when it began and ended, as the callee or the caller saw it."""
        return (self.server_start_ns, self.server_end_ns) if at_callee else (self.start_ns, self.end_ns)


_READ_COLUMNS: Final = tuple(
    name for name in RetryCandidate.__dataclass_fields__ if name not in ("row", "trace", "method", "target")
)


def read_retry_candidates(spans: SpanBatch, attempt_table: pa.Table, caller_rows: IntArray) -> list[RetryCandidate]:
    """Read the exchanges that may be attempts at the same; `askers` has the row of each one's caller."""
    rows = _find_candidate_rows(attempt_table, spans.index.trace_indices[caller_rows])
    if not len(rows):
        return []
    chosen = attempt_table.take(pa.array(rows))
    columns = {name: chosen["async" if name == "asynchronous" else name].to_pylist() for name in _READ_COLUMNS}
    columns["resend_count"] = [count or 0 for count in columns["resend_count"]]
    for time in ("start_ns", "end_ns"):
        columns[f"server_{time}"] = pc.coalesce(chosen[f"server_{time}"], chosen[time]).to_pylist()
    clients = caller_rows[rows]
    facts = ExtractedAttributes(spans.column("keys").take(clients), spans.column("texts").take(clients))
    described = _describe_requests(facts, spans.column("name").take(clients).to_pylist())
    traces = spans.index.trace_indices[clients].tolist()
    found = []
    for place, (row, (method, target)) in enumerate(zip(rows.tolist(), described, strict=True)):
        values = {name: column[place] for name, column in columns.items()}
        if values["shape"] == BARE:
            method, target = None, ""
        found.append(RetryCandidate(row=row, trace=traces[place], method=method, target=target, **values))
    return found


def _find_candidate_rows(attempt_table: pa.Table, traces: IntArray) -> IntArray:
    """Find the rows of exchanges that may be attempts at the same as others, in their trace and with their callee.

    That takes something that failed in a way worth another try, was said to be a further one, or was answered twice.
    """
    counted = to_bool_array(pc.greater_equal(attempt_table["resend_count"], _ONE))
    clients = attempt_table["client_key"].filter(pc.equal(attempt_table["shape"], _PAIRED)).value_counts()
    twice = clients.filter(pc.greater(clients.field("counts"), _ONE)).field("values")
    suspicious = (
        to_bool_array(attempt_table["retryable"])
        | counted
        | to_bool_array(pc.is_in(attempt_table["client_key"], twice))
    )
    callees = attempt_table["callee"].combine_chunks().dictionary_encode().indices.to_numpy()
    asked = traces << 32 | callees
    return np.flatnonzero(np.isin(asked, asked[suspicious])) if suspicious.any() else np.array([], np.int64)


def _describe_requests(attributes: ExtractedAttributes, names: list[str]) -> Iterator[tuple[str | None, str]]:
    """Say of exit spans by which method they asked, and for what: attempts at the same have these in common."""
    wanted = (
        "http_method", "rpc_method", "db_system", "db_namespace", "db_statement", "messaging_system", "destination",
        "message_id", "rpc_service", "url", "peer_name", "server_address", "server_port",
    )  # fmt: skip
    for name, *texts in zip(names, *(attributes.read(fact).to_pylist() for fact in wanted), strict=True):
        of = dict(zip(wanted, texts, strict=True))
        target: tuple[str | None, ...]
        if of["db_system"] is not None:
            target = (of["db_system"], of["db_namespace"], name if of["db_statement"] is None else of["db_statement"])
        elif of["messaging_system"] is not None or of["destination"] is not None:
            target = (of["messaging_system"], of["destination"], of["message_id"], name)
        elif of["rpc_service"] is not None:
            target = (of["rpc_service"], of["rpc_method"])
        elif of["url"] is not None:
            target = (of["http_method"], of["url"])
        else:
            target = (name, of["server_address"] if of["peer_name"] is None else of["peer_name"], of["server_port"])
        method = of["rpc_method"] if of["http_method"] is None else of["http_method"]
        yield method, " ".join(part for part in target if part is not None)
