"""Trigger that sends HTTP requests, each with its own trace, and returns the responses."""

from __future__ import annotations

import mimetypes
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import httpx

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed, first_line
from spanproof.assertions.triggers.request import TriggerRequest, build_json
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse
from spanproof.query_lang.check.constants import Constant, format_constant


class HttpResponse(TriggerResponse, frozen=True):
    """The response to an HTTP request."""

    request: httpx.Request
    headers: httpx.Headers

    @property
    def has_failed(self) -> bool:
        """Return whether the status is a client or server error."""
        return self.status >= 400

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None if it has no such part."""
        if part == "headers":
            value = self.headers.get(str(keys[0]))
            return None if value is None else Constant(value, "text")
        return TriggerResponse.read(self, part, keys)


@contextmanager
def open_http(request: TriggerRequest) -> Iterator[SendRequest]:
    """Yield a function that sends the request of a ``when``. It raises TriggerFailed if no response arrives.

    It does not follow redirects: their location is part of the response.
    """
    template, timeout = _build_request(request), request.read_timeout_s()
    targets = request.allowed_targets
    limits = httpx.Limits(max_connections=None)

    def send(context: TraceContext) -> HttpResponse:
        http_request = httpx.Request(
            template.method,
            template.url,
            headers=context.merge_headers(dict(template.headers)),
            content=template.content,
        )
        sent_request = http_request if targets is None else targets.pin_address(http_request)
        started_ns = time.perf_counter_ns()
        try:
            response = client.send(sent_request)
        except httpx.TimeoutException:
            raise TriggerFailed(
                f"{http_request.method} {http_request.url} was not answered within {timeout:g}s"
            ) from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise TriggerFailed(f"{http_request.method} {http_request.url} failed: {first_line(reason)}") from None
        duration_ns = time.perf_counter_ns() - started_ns
        return HttpResponse(response.status_code, response.text, duration_ns, http_request, response.headers)

    ssl_context = _load_ssl_context(with_certificates=template.url.scheme == "https")
    with httpx.Client(timeout=timeout, limits=limits, trust_env=False, verify=ssl_context) as client:
        yield send


@cache
def _load_ssl_context(*, with_certificates: bool) -> ssl.SSLContext:
    """Return a TLS context with the trusted certificates, or one that trusts nothing, for requests without TLS.

    Loading the certificates takes longer than most requests.
    """
    return httpx.create_ssl_context(trust_env=False) if with_certificates else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _build_request(request: TriggerRequest) -> httpx.Request:
    """Return the request that the proof describes, without a trace context."""
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
    assert isinstance(pairs, dict)  # noqa: S101 (by the grammar)
    return {key: format_constant(Constant(value, "any")) for key, value in pairs.items()}


def _read_files(request: TriggerRequest) -> list[tuple[str, tuple[str, bytes, str]]] | None:
    """Return the files to send as form parts: the field name, then the file name, content and media type."""
    files = []
    for option in request.when.options:
        if option.kind == "file":
            name = request.resolve_path(option).name
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            files.append((request.read_key(option), (name, request.read_file(option), media_type)))
    return files or None
