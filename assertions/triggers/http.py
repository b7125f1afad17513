"""Sends HTTP requests that start a trace of their own, and keeps what came back."""

from __future__ import annotations

import mimetypes
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import httpx

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed, first_line
from spanproof.assertions.triggers.request import TriggerRequest, build_json
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse
from spanproof.query_lang.check.constants import Constant, format_constant


@dataclass(frozen=True, slots=True)
class HttpResponse(TriggerResponse):
    """What a request was answered with."""

    request: httpx.Request
    headers: httpx.Headers

    @property
    def has_failed(self) -> bool:
        """The request was refused, or could not be served."""
        return self.status >= 400

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None where it has no such part."""
        if part == "headers":
            value = self.headers.get(str(keys[0]))
            return None if value is None else Constant(value, "text")
        return TriggerResponse.read(self, part, keys)


@contextmanager
def open_http(request: TriggerRequest) -> Iterator[SendRequest]:
    """Make a client for the request of a ``when``. What it yields raises TriggerFailed where no answer comes.

    Redirects are not followed: where they lead is part of the response.
    """
    template, timeout = _build_request(request), request.read_timeout_s()
    targets = request.allowed_targets
    limits = httpx.Limits(max_connections=None)

    def send(context: TraceContext) -> HttpResponse:
        asked = httpx.Request(
            template.method,
            template.url,
            headers=context.merge_headers(dict(template.headers)),
            content=template.content,
        )
        sent = asked if targets is None else targets.pin_address(asked)
        started_ns = time.perf_counter_ns()
        try:
            response = client.send(sent)
        except httpx.TimeoutException:
            raise TriggerFailed(f"{asked.method} {asked.url} was not answered within {timeout:g}s") from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise TriggerFailed(f"{asked.method} {asked.url} failed: {first_line(reason)}") from None
        took = time.perf_counter_ns() - started_ns
        return HttpResponse(response.status_code, response.text, took, asked, response.headers)

    with httpx.Client(timeout=timeout, limits=limits, trust_env=False, verify=_load_ssl_context()) as client:
        yield send


@cache
def _load_ssl_context() -> ssl.SSLContext:
    """Return whose certificates are trusted; to read them takes longer than many a request."""
    return httpx.create_ssl_context(trust_env=False)


def _build_request(request: TriggerRequest) -> httpx.Request:
    """Return the request as the proof has it, without a trace."""
    url = request.read_target(0)
    headers = {name.lower(): value for name, value in request.read_headers().items()}
    body = request.read_body()
    if body is not None and request.when.option("json") is not None:
        headers.setdefault("content-type", body[1])
    try:
        built = httpx.Request(
            request.when.kind,
            httpx.URL(url).copy_merge_params(
                [
                    (request.read_key(each), request.read_text(each))
                    for each in request.when.options
                    if each.kind == "query"
                ]
            ),
            headers=headers,
            content=body[0] if body is not None else None,
            data=_read_form(request),
            files=_read_files(request),
        )
        built.read()
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError, TypeError) as error:
        raise TriggerFailed(f"`{url}` cannot be requested: {first_line(str(error))}") from None
    if built.url.scheme not in ("http", "https") or not built.url.host:
        raise TriggerFailed(f"`{url}` is not an address such as http://127.0.0.1:8080/path")
    return built


def _read_form(request: TriggerRequest) -> dict[str, str] | None:
    option = request.when.option("form")
    if option is None:
        return None
    pairs = build_json(option.value, request.bindings)
    assert isinstance(pairs, dict)  # noqa: S101 (the grammar's own)
    return {key: format_constant(Constant(value, "any")) for key, value in pairs.items()}


def _read_files(request: TriggerRequest) -> list[tuple[str, tuple[str, bytes, str]]] | None:
    """Return the files to send, as parts of a form: the field's name, then the file's name, content and type."""
    files = []
    for option in request.when.options:
        if option.kind == "file":
            name = request.resolve_path(option).name
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            files.append((request.read_key(option), (name, request.read_file(option), kind)))
    return files or None
