"""Which attempts have failed, and which failures are retryable. Both are decided here and nowhere else.

An attempt has failed if its span has status ERROR, its HTTP status is 500 or above, or its RPC status is not OK. It
is retryable if it has failed (so a 503 is retryable), if its span names an error type, or if its HTTP status is 408,
425 or 429. A redirect and a request for credentials are never retryable: the client sends a different request.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.extracted_attributes import parse_int32
from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import BoolArray, to_bool_array

TRANSIENT_CLIENT_ERRORS: Final = ("408", "425", "429")
CHALLENGES: Final = ("401", "407")


class HttpOutcome(IntEnum):
    """Meaning of an HTTP status for failures and retries."""

    OTHER = 0
    SERVER_ERROR = 1  # 500 and above
    TRANSIENT_CLIENT_ERROR = 2  # 408, 425, 429
    REDIRECT_OR_CHALLENGE = 3  # the client follows up with a different request


# Typed scalars: for a Python value, pyarrow infers the type at each call, at ten times the cost of a comparison.
_ERROR = pa.scalar(semconv.STATUS_CODES["error"], pa.int32())
_SERVER_ERROR, _TRANSIENT_CLIENT_ERROR, _REDIRECT_OR_CHALLENGE = (
    pa.scalar(outcome, pa.uint8())
    for outcome in (HttpOutcome.SERVER_ERROR, HttpOutcome.TRANSIENT_CLIENT_ERROR, HttpOutcome.REDIRECT_OR_CHALLENGE)
)
_RPC_OK_STATUSES: Final = pa.array(["0", "OK"], pa.string())
_NULL_BOOL: Final = pa.scalar(None, pa.bool_())


def classify_http_status(http_status: str) -> int:
    """Return the `HttpOutcome` of an HTTP status."""
    if (parse_int32(http_status) or 0) >= 500:
        return HttpOutcome.SERVER_ERROR
    if http_status in TRANSIENT_CLIENT_ERRORS:
        return HttpOutcome.TRANSIENT_CLIENT_ERROR
    if http_status in CHALLENGES or (len(http_status) == 3 and http_status.startswith("3")):
        return HttpOutcome.REDIRECT_OR_CHALLENGE
    return HttpOutcome.OTHER


def has_rpc_failed(rpc_status: pa.Array) -> pa.Array:
    """Return whether each RPC has failed; null without an RPC status."""
    return pc.if_else(rpc_status.is_valid(), pc.invert(pc.is_in(rpc_status, _RPC_OK_STATUSES)), _NULL_BOOL)


def is_failed(status: pa.Array, http_outcome: pa.Array, rpc_failed: pa.Array) -> BoolArray:
    """Return which attempts have failed, by the status of their span, of HTTP or of the RPC."""
    http_failed = pc.equal(http_outcome, _SERVER_ERROR)
    return to_bool_array(pc.equal(status, _ERROR)) | to_bool_array(http_failed) | to_bool_array(rpc_failed)


def is_retryable(error: BoolArray, has_error_type: BoolArray, http_outcome: pa.Array) -> BoolArray:
    """Return which attempts failed in a way that a retry could mend; `error` is the result of `is_failed`."""
    failed = error | has_error_type | to_bool_array(pc.equal(http_outcome, _TRANSIENT_CLIENT_ERROR))
    return failed & ~to_bool_array(pc.equal(http_outcome, _REDIRECT_OR_CHALLENGE))


def is_followed_up(http_outcome: int | None) -> bool:
    """Return whether a client answers this outcome with a different request, not with a retry."""
    return http_outcome == HttpOutcome.REDIRECT_OR_CHALLENGE
