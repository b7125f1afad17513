"""Where stored traces are read from: a running server, or a file."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from spanproof.api.schemas import TraceDocument
from spanproof.assertions.evidence import TraceView, view_trace
from spanproof.collector.auth import load_tokens
from spanproof.collector.calls import derive
from spanproof.collector.failures import Unusable
from spanproof.collector.store import Store


class ServerError(Unusable):
    """The server cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Access:
    """A server, and what it is shown and trusted by."""

    server: str
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None

    def headers(self) -> dict[str, str]:
        """Make the headers of a request. Raises ValueError for a file without tokens."""
        return {"authorization": f"Bearer {load_tokens(self.token_file)[0]}"} if self.token_file else {}

    def verify(self) -> ssl.SSLContext | bool:
        """Make what TLS needs beyond the usual. Raises ValueError for files that cannot be used."""
        if self.ca is None and self.certificate is None:
            return True
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"{self.ca or self.certificate}: {error.strerror or error}") from None
        return context


def fetch_trace(access: Access, trace_id: str) -> TraceView | None:
    """Fetch a trace, or None if the server has no span of it. Raises :class:`ServerError`."""
    server = access.server
    url = f"{server.rstrip('/')}/api/v1/traces/{trace_id}"
    try:
        response = httpx.get(url, headers=access.headers(), verify=access.verify(), timeout=30, trust_env=False)
    except ValueError as error:
        raise ServerError(str(error)) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"no server answers at {server} ({error}); start one with `spanproof serve`") from None
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ServerError(f"{server} admits only who shows a token it knows; name a file of tokens with --token-file")
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
