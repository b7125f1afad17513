"""Generation of a proof from one explored request."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from spanproof.assertions.run.exploration import Exploration, write_duration_claim
from spanproof.query_lang.check.requests import HTTP_METHODS
from spanproof.query_lang.syntax.formatter import format_file
from spanproof.query_lang.syntax.parser import parse_file
from spanproof.query_lang.syntax.printer import escape_string, format_json, format_string, parse_json


class ExploredRequest(Struct, frozen=True):
    """A request to explore: a method, a URL in two parts, and an optional JSON body."""

    method: str
    base: str
    path: str
    json_body: Any = None

    @property
    def url(self) -> str:
        """The whole URL."""
        return self.base + self.path

    def write_when(self, base: str) -> str:
        """Return the `when` that sends the request; `base` is inserted as it is, between quotes."""
        head = f'when {self.method} "{base}{escape_string(self.path)}"'
        return head if self.json_body is None else f"{head} {{\njson {format_json(self.json_body)}\n}}"


def read_request(url: str, method: str | None, json_text: str | None) -> ExploredRequest:
    """Return the request that options describe. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_valid_port(parts):
        raise ValueError(f"{url!r} is not a URL; write it as http://127.0.0.1:8080/orders")
    if parts.username or parts.password:
        raise ValueError("leave the password out of the URL: the proof would contain it")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    json_body = None
    if json_text is not None:
        try:
            json_body = parse_json(json_text)
        except (ValueError, ArithmeticError) as error:
            where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"--json is not JSON{where}: {json_text!r}") from None
    checked_method = (method or ("GET" if json_body is None else "POST")).upper()
    if checked_method not in HTTP_METHODS:
        raise ValueError(f"--method is one of {', '.join(HTTP_METHODS)}, not {method!r}")
    return ExploredRequest(checked_method, f"{parts.scheme}://{parts.netloc}", path, json_body)


def _has_valid_port(parts: SplitResult) -> bool:
    """Return whether the port is valid; a missing port is."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def write_generated_proof(request: ExploredRequest, exploration: Exploration | None) -> str:
    """Return a formatted proof of a request, with claims from its exploration, or with a default claim without one."""
    path = request.path.partition("?")[0]
    lines = [
        f'let base = env("BASE_URL") or {format_string(request.base)}',
        "",
        f"proof {format_string(f'{request.method} {path}')} {{",
        request.write_when("{base}"),
        "",
        *(_write_expectations(exploration) if exploration else ["expect response.status == 200"]),
        "}",
    ]
    return format_file(parse_file("\n".join(lines) + "\n", ""))


def _write_expectations(exploration: Exploration) -> list[str]:
    claims = exploration.claims or (write_duration_claim("response.duration", exploration.duration_ns),)
    return [f"expect response.status == {exploration.status}", *(f"expect {claim}" for claim in claims)]
