"""Which spans are in error, by the semantic conventions, and what an HTTP or RPC status means for that.

The first rule that matches decides: status OK is no error; status ERROR is one; an RPC status; an HTTP status. A client
counts every status of an RPC except OK, and HTTP statuses from 400. A server counts the RPC statuses that are its own
fault, and HTTP statuses from 500.

Sources: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status and
https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#grpc-status.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import BoolArray, to_bool_array
from spanproof.collector.topology.extracted_attributes import parse_int32

TRANSIENT_CLIENT_ERRORS: Final = (408, 425, 429)
CHALLENGES: Final = (401, 407)


class HttpOutcome(IntEnum):
    """Meaning of an HTTP status for failures and retries. Values are ordered: from `CLIENT_ERROR` on, clients fail."""

    OTHER = 0
    REDIRECT = 1  # the client follows up with a different request
    CLIENT_ERROR = 2  # 400 to 499, without those below
    CHALLENGE = 3  # 401, 407: the client may follow up with a different request
    TRANSIENT_CLIENT_ERROR = 4  # 408, 425, 429
    SERVER_ERROR = 5  # 500 and above


class RpcOutcome(IntEnum):
    """Meaning of an RPC status. Values are ordered: from `CANCELLED` on, a retry could mend the failure."""

    OK = 0
    CALLER_FAULT = 1  # the server did what it should
    SERVER_FAULT = 2  # UNIMPLEMENTED, DATA_LOSS, and statuses of systems other than gRPC
    CANCELLED = 3
    TRANSIENT = 4  # RESOURCE_EXHAUSTED, ABORTED
    TRANSIENT_SERVER_FAULT = 5  # UNKNOWN, INTERNAL, UNAVAILABLE
    DEADLINE_EXCEEDED = 6


_GRPC_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_RPC_OUTCOMES: Final = {
    "OK": RpcOutcome.OK,
    "CANCELLED": RpcOutcome.CANCELLED,
    "CANCELED": RpcOutcome.CANCELLED,  # as Connect writes it
    "RESOURCE_EXHAUSTED": RpcOutcome.TRANSIENT,
    "ABORTED": RpcOutcome.TRANSIENT,
    "UNKNOWN": RpcOutcome.TRANSIENT_SERVER_FAULT,
    "INTERNAL": RpcOutcome.TRANSIENT_SERVER_FAULT,
    "UNAVAILABLE": RpcOutcome.TRANSIENT_SERVER_FAULT,
    "DEADLINE_EXCEEDED": RpcOutcome.DEADLINE_EXCEEDED,
    "UNIMPLEMENTED": RpcOutcome.SERVER_FAULT,
    "DATA_LOSS": RpcOutcome.SERVER_FAULT,
}
_OUTCOME_TYPE: Final = pa.uint8()
# Typed scalars: for a Python value, pyarrow infers the type at each call, at ten times the cost of a comparison.
_OK, _ERROR = (pa.scalar(semconv.STATUS_CODES[name], pa.int32()) for name in ("ok", "error"))
_CLIENT_ERROR, _SERVER_ERROR, _CALLER_FAULT = (
    pa.scalar(outcome, _OUTCOME_TYPE)
    for outcome in (HttpOutcome.CLIENT_ERROR, HttpOutcome.SERVER_ERROR, RpcOutcome.CALLER_FAULT)
)
_SERVER_FAULTS: Final = pa.array(
    [RpcOutcome.SERVER_FAULT, RpcOutcome.TRANSIENT_SERVER_FAULT, RpcOutcome.DEADLINE_EXCEEDED], _OUTCOME_TYPE
)


def classify_http_status(http_status: str) -> int | None:
    """Return the `HttpOutcome` of an HTTP status, or None if the text is not one."""
    status = parse_int32(http_status)
    if status is None or status < 100:
        return None
    if status >= 500:
        return HttpOutcome.SERVER_ERROR
    if status in TRANSIENT_CLIENT_ERRORS:
        return HttpOutcome.TRANSIENT_CLIENT_ERROR
    if status in CHALLENGES:
        return HttpOutcome.CHALLENGE
    if status >= 400:
        return HttpOutcome.CLIENT_ERROR
    return HttpOutcome.REDIRECT if status >= 300 else HttpOutcome.OTHER


def classify_rpc_status(rpc_status: str) -> int:
    """Return the `RpcOutcome` of an RPC status: a number of gRPC, or a name of gRPC or Connect."""
    if rpc_status.isdecimal() and int(rpc_status) < len(_GRPC_CODES):
        rpc_status = _GRPC_CODES[int(rpc_status)]
    code = rpc_status.upper()
    if code in _RPC_OUTCOMES:
        return _RPC_OUTCOMES[code]
    return RpcOutcome.CALLER_FAULT if code in _GRPC_CODES else RpcOutcome.SERVER_FAULT


def find_errors(status: pa.Array, http_outcome: pa.Array, rpc_outcome: pa.Array, is_exit: BoolArray) -> BoolArray:
    """Return which spans are in error. `is_exit`: as seen by the client."""
    exits = pa.array(is_exit)
    rpc_error = pc.if_else(
        exits,
        pc.greater_equal(rpc_outcome, _CALLER_FAULT),
        _keep_nulls(rpc_outcome, pc.is_in(rpc_outcome, _SERVER_FAULTS)),
    )
    http_error = pc.if_else(
        exits, pc.greater_equal(http_outcome, _CLIENT_ERROR), pc.greater_equal(http_outcome, _SERVER_ERROR)
    )
    by_status = to_bool_array(pc.equal(status, _ERROR))
    is_ok = to_bool_array(pc.equal(status, _OK))
    return by_status | (~is_ok & to_bool_array(pc.coalesce(rpc_error, http_error)))


def _keep_nulls(values: pa.Array, results: pa.Array) -> pa.Array:
    return pc.if_else(values.is_valid(), results, pa.scalar(None, pa.bool_()))
