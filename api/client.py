"""Where stored traces are read from: a running server, or a file."""

from __future__ import annotations

import httpx

from spanproof.api.schemas import TraceDocument
from spanproof.assertions.evidence import TraceView, view_trace
from spanproof.collector.calls import derive
from spanproof.collector.failures import Unusable
from spanproof.collector.store import Store


class ServerError(Unusable):
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


def read_trace(db: str, trace_id: str) -> TraceView | None:
    """Read a trace from a file, or return None if the file has no span of it. Raises Unusable."""
    with Store.open(db) as store:
        derive(store)
        connection = store.cursor()
        try:
            return view_trace(connection, trace_id, requests_only=False)
        finally:
            connection.close()
