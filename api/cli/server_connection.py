"""Options of commands that query a server: its URL, the token and the certificates."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from spanproof.collector.user_errors import UserError

if TYPE_CHECKING:
    import httpx


class ServerError(UserError):
    """The server cannot be queried; the message gives the reason."""


class ServerAccess(Struct, frozen=True):
    """The options for access to a server; each field is an option of the command."""

    server: Annotated[str, typer.Option(metavar="URL", envvar="SPANPROOF_SERVER", help="The server to query.")] = (
        "http://127.0.0.1:8321"
    )
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="SPANPROOF_TOKEN_FILE", help="Authenticate with the first token of this file."
        ),
    ] = None
    tls_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trust a server with a certificate from these CAs (PEM).")
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Authenticate with this certificate (PEM, with its key).")
    ] = None

    def send_request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 90,
    ) -> httpx.Response:
        """Return the server's response to a request. Raises ServerError.

        The caller handles statuses of 400 and above, except for 401 and 403, which raise ServerError.
        """
        import httpx

        try:
            response = httpx.request(
                method,
                f"{self.server.rstrip('/')}{path}",
                json=json,
                headers={**self._make_auth_headers(), **(headers or {})},
                verify=self._make_tls_context(),
                timeout=timeout_s,
                trust_env=False,
            )
        except ValueError as error:
            raise ServerError(str(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = f"no server answers at {self.server} ({str(error) or type(error).__name__})"
            raise ServerError(f"{problem}; start one with `spanproof serve`") from None
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise ServerError(
                f"{self.server} admits only clients with a valid token; name a file of tokens with --token-file"
            )
        if response.status_code == httpx.codes.FORBIDDEN:
            raise make_server_error(response)
        return response

    def _make_auth_headers(self) -> dict[str, str]:
        if self.token_file is None:
            return {}
        from spanproof.collector.receive.authentication import read_first_token

        return {"authorization": f"Bearer {read_first_token(self.token_file)}"}

    def _make_tls_context(self) -> ssl.SSLContext | bool:
        if self.tls_ca is None and self.tls_cert is None:
            return True
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert)
        except OSError as error:  # ssl.SSLError is a subclass
            raise ValueError(f"{self.tls_ca or self.tls_cert}: {error.strerror or error}") from None
        return context


def read_diagnostics(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the diagnostics of a submitted text in a response of status 400 or above."""
    try:
        return list(response.json()["diagnostics"])
    except (ValueError, KeyError, TypeError):
        return []


def make_server_error(response: httpx.Response) -> ServerError:
    """Return an error for a response of status 400 or above, with the `detail` of the response if it has one."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered {response.status_code}"
    return ServerError(f"{response.request.url}: {detail}")
