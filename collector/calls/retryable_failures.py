"""Which attempts failed in a way that a retry could mend.

`span_errors` classifies the RPC and HTTP statuses; what follows from their classes is decided here and nowhere else. An
RPC status alone decides: UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNKNOWN, and CANCELLED
by the callee are retryable. Else an HTTP status alone decides: 408, 425, 429 and 5xx (so a 503) are retryable; a 404, a
409 or a 422 is an answer. Without a status, an error, an error type, an exception or a missing response is retryable.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.storage.arrow_columns import BoolArray, to_bool_array
from spanproof.collector.topology.span_errors import HttpOutcome, RpcOutcome

_RETRYABLE_HTTP_OUTCOMES: Final = pa.array([HttpOutcome.TRANSIENT_CLIENT_ERROR, HttpOutcome.SERVER_ERROR], pa.uint8())
_CANCELLED: Final = pa.scalar(RpcOutcome.CANCELLED, pa.uint8())


def find_retryable(
    rpc_outcome: pa.Array, http_outcome: pa.Array, failed_without_status: BoolArray, callee_cancelled: BoolArray
) -> BoolArray:
    """Return which attempts failed retryably.

    `failed_without_status`: an error, an error type, an exception or no response. `callee_cancelled`: the callee itself
    ended with CANCELLED.
    """
    is_rpc, is_http = to_bool_array(rpc_outcome.is_valid()), to_bool_array(http_outcome.is_valid())
    rpc_retryable = to_bool_array(pc.greater(rpc_outcome, _CANCELLED)) | (
        to_bool_array(pc.equal(rpc_outcome, _CANCELLED)) & callee_cancelled
    )
    http_retryable = to_bool_array(pc.is_in(http_outcome, _RETRYABLE_HTTP_OUTCOMES))
    retryable: BoolArray = (is_rpc & rpc_retryable) | (
        ~is_rpc & ((is_http & http_retryable) | (~is_http & failed_without_status))
    )
    return retryable


def is_followed_up(http_outcome: int | None) -> bool:
    """Return whether a client answers this outcome with a different request, not with a retry."""
    return http_outcome in (HttpOutcome.REDIRECT, HttpOutcome.CHALLENGE)
