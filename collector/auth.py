"""Bearer tokens: who may send spans, and ask for them."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from spanproof.collector.option_files import read_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that are admitted; only their hashes are kept."""

    hashes: tuple[bytes, ...]

    def admit(self, authorization: str) -> bool:
        """Tell whether the header `authorization` shows one of them; how long that takes says nothing of which."""
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            return False
        shown = _hash(token.strip())
        return any([hmac.compare_digest(shown, known) for known in self.hashes])  # noqa: C419 (all, always)


def read_tokens(path: Path) -> Tokens:
    """Read which tokens are admitted. Raises ValueError."""
    return Tokens(tuple(_hash(token) for token in load_tokens(path)))


def load_tokens(path: Path) -> list[str]:
    """Load a file of tokens, one in a line; `#` begins a comment. Raises ValueError where there is none."""
    tokens: list[str] = []
    for number, line in enumerate(read_lines(path), 1):
        token = line.partition("#")[0].strip()
        if token and not _TOKEN.fullmatch(token):
            raise ValueError(f"{path}:{number}: a token is letters, digits and ._~+/- without spaces")
        if token:
            tokens.append(token)
    if not tokens:
        raise ValueError(f"{path}: there is no token in it")
    return tokens


class TokenGate:
    """Lets those requests through to an ASGI app that show a token, and those to `open_paths`."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        refuse: Callable[[Request], Response],
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._refuse = refuse
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope)
        if scope["path"] in self._open_paths or self._tokens.admit(request.headers.get("authorization", "")):
            await self._app(scope, receive, send)
        else:
            await self._refuse(request)(scope, receive, send)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
