"""A first proof of a request: what was seen of it once, as claims."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from spanproof.assertions.first_look import FirstLook, write_limit
from spanproof.query_lang.check_requests import METHODS
from spanproof.query_lang.format import format_file
from spanproof.query_lang.parse import parse_file
from spanproof.query_lang.writing import escape, read_json, write_json, write_text


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """What is asked: a method, a URL in two parts, and JSON if there is some."""

    method: str
    base: str
    path: str
    message: Any = None

    @property
    def url(self) -> str:
        """The whole URL."""
        return self.base + self.path

    def write(self, base: str) -> str:
        """Return the `when` that sends it, with `base` as it stands between quotes."""
        head = f'when {self.method} "{base}{escape(self.path)}"'
        return head if self.message is None else f"{head} {{\njson {write_json(self.message)}\n}}"


def read_request(url: str, method: str | None, message: str | None) -> FirstRequest:
    """Read what is to be asked. Raises ValueError, saying what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_a_port(parts):
        raise ValueError(f"{url!r} is no URL; write it as http://127.0.0.1:8080/orders")
    if parts.username or parts.password:
        raise ValueError("leave the password out of the URL: it would stand in the proof")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    read = None
    if message is not None:
        try:
            read = read_json(message)
        except (ValueError, ArithmeticError) as error:
            where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"--json is not JSON{where}: {message!r}") from None
    told = (method or ("GET" if read is None else "POST")).upper()
    if told not in METHODS:
        raise ValueError(f"--method is one of {', '.join(METHODS)}, not {method!r}")
    return FirstRequest(told, f"{parts.scheme}://{parts.netloc}", path, read)


def _has_a_port(parts: SplitResult) -> bool:
    """Tell whether the port is one, said or not."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def write_first_proof(request: FirstRequest, look: FirstLook | None) -> str:
    """Return a proof of a request, laid out: with what was seen of it, or, unseen, with the least to expect."""
    path = request.path.partition("?")[0]
    lines = [
        f'let base = env("BASE_URL") or {write_text(request.base)}',
        "",
        f"proof {write_text(f'{request.method} {path}')} {{",
        request.write("{base}"),
        "",
        *(_expect_what_was_seen(look) if look else ["expect response.status == 200"]),
        "}",
    ]
    return format_file(parse_file("\n".join(lines) + "\n", ""))


def _expect_what_was_seen(look: FirstLook) -> list[str]:
    claims = look.claims or (write_limit("response.duration", look.took_ns),)
    return [f"expect response.status == {look.status}", *(f"expect {claim}" for claim in claims)]
