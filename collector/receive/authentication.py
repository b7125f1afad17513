"""Bearer tokens: who may send spans, ask for them, and have proofs carried out."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from starlette.requests import Request

from spanproof.collector.line_files import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Role(StrEnum):
    """What a token lets its bearer do."""

    INGEST = "ingest"  # send spans
    READ = "read"  # look at traces and runs, ask questions
    RUN = "run"  # have proofs carried out


class Admission(StrEnum):
    """How a request is to be received."""

    GRANTED = "yes"
    UNAUTHENTICATED = "stranger"  # it shows no token that is known
    FORBIDDEN = "forbidden"  # its token is not for this


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that is admitted, of which only the hash is kept, and what it is for."""

    digest: bytes
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class AccessTokens:
    """The tokens that are admitted."""

    tokens: tuple[AccessToken, ...]

    def authorize(self, authorization: str, role: Role) -> Admission:
        """Judge the header `authorization`; how long that takes says nothing of the tokens."""
        scheme, _, shown = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            return Admission.UNAUTHENTICATED
        hashed = _hash_token(shown.strip())
        known = [token for token in self.tokens if hmac.compare_digest(hashed, token.digest)]  # all of them, always
        if not known:
            return Admission.UNAUTHENTICATED
        return Admission.GRANTED if any(role in token.roles for token in known) else Admission.FORBIDDEN


def read_tokens(path: Path) -> AccessTokens:
    """Read which tokens are admitted, and for what. Raises ValueError."""
    return AccessTokens(tuple(AccessToken(_hash_token(text), roles) for text, roles in _parse_token_file(path)))


def read_first_token(path: Path) -> str:
    """Load the first token of a file. Raises ValueError where there is none."""
    return _parse_token_file(path)[0][0]


def _parse_token_file(path: Path) -> list[tuple[str, frozenset[Role]]]:
    """Read lines of a token and, after it, its roles, all unless there are any; `#` begins a comment."""
    found: list[tuple[str, frozenset[Role]]] = []
    for number, line in enumerate(read_lines(path), 1):
        token, *roles = line.partition("#")[0].replace(",", " ").split() or [""]
        if not token:
            continue
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"{path}:{number}: a token is letters, digits and ._~+/- without spaces")
        try:
            found.append((token, frozenset(Role(role) for role in roles or Role)))
        except ValueError:
            raise ValueError(f"{path}:{number}: after a token stand its roles, of {', '.join(Role)}") from None
    if not found:
        raise ValueError(f"{path}: there is no token in it")
    return found


class TokenMiddleware:
    """Lets those requests through to an ASGI app that show a token for them, and those that need none.

    `role_of` says what a request needs, None for nothing; `refuse` makes the answer to the others.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: AccessTokens,
        find_required_role: Callable[[Request], Role | None],
        make_refusal: Callable[[Request, Admission], Response],
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._find_required_role = find_required_role
        self._make_refusal = make_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope)
        role = self._find_required_role(request)
        admitted = Admission.GRANTED
        if role is not None:
            admitted = self._tokens.authorize(request.headers.get("authorization", ""), role)
        app = self._app if admitted is Admission.GRANTED else self._make_refusal(request, admitted)
        await app(scope, receive, send)


def _hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
