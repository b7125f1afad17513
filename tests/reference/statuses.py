"""What HTTP and RPC statuses mean for retries."""

from __future__ import annotations

from fractions import Fraction


def is_redirect(http_status: Fraction | None) -> bool:
    """Return whether a client repeats the request without a failure: a redirect, or a request for credentials."""
    return http_status is not None and (http_status in (401, 407) or 300 <= http_status < 400)


def is_retryable_http(status: Fraction) -> bool:
    return status in (408, 425, 429) or status >= 500


def is_retryable_rpc(status: str) -> bool:
    return status in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN")
