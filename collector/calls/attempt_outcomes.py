"""How attempts ended, from the spans on both sides."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.retryable_failures import find_retryable
from spanproof.collector.storage.arrow_columns import MISSING_ROW, BoolArray, IntArray, to_bool_array
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.span_errors import HttpOutcome, RpcOutcome
from spanproof.collector.topology.topology import Topology

# typed scalars, as in span_errors.py
_NO_BOOL = pa.scalar(None, pa.bool_())
_CLIENT_ERROR, _OK, _CANCELLED = (
    pa.scalar(outcome, pa.uint8()) for outcome in (HttpOutcome.CLIENT_ERROR, RpcOutcome.OK, RpcOutcome.CANCELLED)
)


class AttemptSide:
    """The spans on one side of the attempts, as columns; null where there is no span."""

    def __init__(self, spans: SpanBatch, topology: Topology, rows: IntArray) -> None:
        self._spans, self._topology = spans, topology
        self._rows = pa.array(rows, mask=rows == MISSING_ROW)
        self._columns: dict[str, pa.Array] = {}
        self.keys = self.read("span_key")

    def read(self, column: str) -> pa.Array:
        """Return a column."""
        if column not in self._columns:
            self._columns[column] = self._take(self._spans.column(column))
        return self._columns[column]

    def read_bool(self, column: str) -> BoolArray:
        """Return a column of flags, false where there is no span."""
        return to_bool_array(self.read(column))

    @property
    def durations(self) -> pa.Array:
        """The durations of the spans, in nanoseconds."""
        return pc.subtract(self.read("end_ns"), self.read("start_ns"))

    @cached_property
    def errors(self) -> BoolArray:
        """Whether the spans are in error."""
        return to_bool_array(self._take(pa.array(self._topology.errors)))

    @cached_property
    def is_definite(self) -> BoolArray:
        """Whether no span that may still arrive changes what the spans tell."""
        return to_bool_array(self._take(pa.array(self._topology.is_definite)))

    @cached_property
    def entry_keys(self) -> pa.Array:
        """The keys of the entry spans above the spans."""
        return self._spans.take_keys(self._take(pa.array(self._topology.entries)).fill_null(MISSING_ROW).to_numpy())

    @cached_property
    def has_error_sign(self) -> BoolArray:
        """Whether the spans are in error, or name an error type or an exception."""
        signs: BoolArray = self.errors | self.read_bool("has_error_type") | self.read_bool("has_exception")
        return signs

    @cached_property
    def was_cancelled(self) -> BoolArray:
        """Whether the spans record that the request was cancelled."""
        return to_bool_array(pc.equal(self.read("rpc_outcome"), _CANCELLED))

    @cached_property
    def is_retryable(self) -> BoolArray:
        """Whether the spans, by themselves, report a failure that a retry may repair."""
        return find_retryable(
            self.read("rpc_outcome"), self.read("http_outcome"), self.has_error_sign, self.was_cancelled
        )

    def _take(self, values: pa.Array) -> pa.Array:
        return values.take(self._rows)


class AttemptOutcome:
    """How attempts ended, for their callers."""

    def __init__(self, exit_: AttemptSide, server: AttemptSide, judged_at_server: pa.Array) -> None:
        at_server = to_bool_array(judged_at_server)
        has_exit = to_bool_array(exit_.keys.is_valid())
        server_ended_first = to_bool_array(pc.less_equal(server.read("end_ns"), exit_.read("end_ns")))
        http, rpc = exit_.read("http_outcome"), exit_.read("rpc_outcome")
        has_status = to_bool_array(http.is_valid()) | to_bool_array(rpc.is_valid())
        # A response that the client did not record may be the one that the server sent. Where the client reports an
        # error, a success of the server does not explain it: the response was lost.
        server_failed = to_bool_array(pc.greater_equal(server.read("http_outcome"), _CLIENT_ERROR)) | to_bool_array(
            pc.greater(server.read("rpc_outcome"), _OK)
        )
        from_server = server_ended_first & ~has_status & (server_failed | ~exit_.has_error_sign)
        use_server = pa.array(at_server | from_server)
        self.http_outcome = pc.if_else(use_server, server.read("http_outcome"), http)
        self.rpc_outcome = pc.if_else(use_server, server.read("rpc_outcome"), rpc)
        is_http_client = exit_.read_bool("has_http_method") & ~exit_.read_bool("is_rpc")
        is_finished = to_bool_array(exit_.read("end_ns").is_valid())
        self.no_response: BoolArray = has_exit & ~at_server & is_http_client & is_finished & ~has_status & ~from_server
        # outside HTTP, whether a response was received is decided where a timeout is judged
        is_known = is_http_client & (is_finished | has_status) & ~at_server
        self.responded = pc.if_else(pa.array(is_known), ~self.no_response, _NO_BOOL)
        self.error: BoolArray = np.where(at_server, server.errors, exit_.errors)
        signs = np.where(at_server, server.has_error_sign, exit_.has_error_sign | (from_server & server.errors))
        cancelled = server.was_cancelled & (server_ended_first | at_server)
        self.is_retryable = find_retryable(self.rpc_outcome, self.http_outcome, signs | self.no_response, cancelled)
