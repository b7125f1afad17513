"""Asks a running server."""

from __future__ import annotations

import httpx

from spanproof.api.schemas import TraceDocument
from spanproof.assertions.evidence import TraceView


class ServerError(Exception):
    """The server cannot be asked; the message says why."""


def fetch_trace(server: str, trace_id: str) -> TraceView | None:
    """Fetch a trace, or None if the server has no span of it. Raises :class:`ServerError`."""
    url = f"{server.rstrip('/')}/api/v1/traces/{trace_id}"
    try:
        response = httpx.get(url, timeout=30, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"no server answers at {server} ({error}); start one with `spanproof serve`") from None
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    if response.is_error:
        raise ServerError(f"{url} answered {response.status_code}")
    return TraceDocument.model_validate_json(response.content).view()
