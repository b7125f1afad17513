"""Bearer tokens: authorize senders of spans, readers, and callers that run proofs."""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct
from starlette.requests import Request

from spanproof.collector.line_files import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Role(StrEnum):
    """Permissions of a token."""

    INGEST = "ingest"  # send spans
    READ = "read"  # read traces and runs, run queries
    RUN = "run"  # run proofs


class Admission(StrEnum):
    """Result of authorizing a request."""

    GRANTED = "granted"
    UNAUTHENTICATED = "unauthenticated"  # no known token
    FORBIDDEN = "forbidden"  # the token lacks the role


class AccessToken(Struct, frozen=True):
    """A known token, stored as a hash, and its roles."""

    digest: bytes
    roles: frozenset[Role]


class AccessTokens(Struct, frozen=True):
    """The known tokens."""

    tokens: tuple[AccessToken, ...]

    def authorize(self, authorization: str, role: Role) -> Admission:
        """Check the header `authorization`; the duration does not depend on the tokens."""
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            return Admission.UNAUTHENTICATED
        digest = _hash_token(token.strip())
        matches = [
            access for access in self.tokens if hmac.compare_digest(digest, access.digest)
        ]  # constant time: compares all
        if not matches:
            return Admission.UNAUTHENTICATED
        return Admission.GRANTED if any(role in access.roles for access in matches) else Admission.FORBIDDEN


def read_tokens(path: Path) -> AccessTokens:
    """Return the known tokens and their roles. Raise ValueError."""
    return AccessTokens(tuple(AccessToken(_hash_token(text), roles) for text, roles in _parse_token_file(path)))


def read_first_token(path: Path) -> str:
    """Return the first token of a file. Raise ValueError if it has none."""
    return _parse_token_file(path)[0][0]


def _parse_token_file(path: Path) -> list[tuple[str, frozenset[Role]]]:
    """Return the tokens and roles of a file.

    Each line is a token followed by its roles; without roles, the token has all roles. `#` starts a comment.
    """
    tokens: list[tuple[str, frozenset[Role]]] = []
    for number, line in enumerate(read_lines(path), 1):
        token, *roles = line.partition("#")[0].replace(",", " ").split() or [""]
        if not token:
            continue
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"{path}:{number}: a token is letters, digits and ._~+/- without spaces")
        try:
            tokens.append((token, frozenset(Role(role) for role in roles or Role)))
        except ValueError:
            raise ValueError(
                f"{path}:{number}: unknown role after the token; the roles are {', '.join(Role)}"
            ) from None
    if not tokens:
        raise ValueError(f"{path}: the file contains no token")
    return tokens


class TokenMiddleware:
    """ASGI middleware for requests that need no token or whose token has the required role.

    `find_required_role` returns the role that a request needs, or None. `make_rejection` makes the response to the
    others.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: AccessTokens,
        find_required_role: Callable[[Request], Role | None],
        make_rejection: Callable[[Request, Admission], Response],
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._find_required_role = find_required_role
        self._make_rejection = make_rejection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        request = Request(scope)
        role = self._find_required_role(request)
        admission = Admission.GRANTED
        if role is not None:
            admission = self._tokens.authorize(request.headers.get("authorization", ""), role)
        app = self._app if admission is Admission.GRANTED else self._make_rejection(request, admission)
        await app(scope, receive, send)


def _hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
