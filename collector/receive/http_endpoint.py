"""OTLP over HTTP: an ASGI app for /v1/traces, /v1/logs, /v1/metrics and profiles, in protobuf or JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from google.protobuf import json_format
from google.rpc.code_pb2 import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
)
from google.rpc.status_pb2 import Status
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from spanproof.collector.otlp.json_mapping import dump_json, json_to_protobuf, render_message
from spanproof.collector.receive.authentication import Admission, Role, TokenMiddleware
from spanproof.collector.receive.request_body import ByteBudget, read_body
from spanproof.collector.receive.signals import format_outcome
from spanproof.collector.receive.status import (
    REQUEST_ERRORS,
    PathNotFound,
    PermissionDenied,
    Unauthenticated,
    format_status_code,
    make_status,
    truncate_message,
)
from spanproof.collector.storage.ingest_queue import RETRY_AFTER_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.protobuf.message import Message
    from starlette.types import ASGIApp

    from spanproof.collector.receive.receiver_options import ReceiverOptions
    from spanproof.collector.receive.signals import Signal
    from spanproof.collector.storage.telemetry import Telemetry

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

_STATUS_CODES = {
    INVALID_ARGUMENT: 400,
    UNAUTHENTICATED: 401,
    PERMISSION_DENIED: 403,
    NOT_FOUND: 404,
    RESOURCE_EXHAUSTED: 413,
    UNAVAILABLE: 503,
}
# Parsed into Python objects, JSON takes about fifteen times its size.
_LARGE_JSON_BYTES = 2**20
_PREFLIGHT_MAX_AGE_S = 7200


def make_otlp_app(signals: Sequence[Signal], options: ReceiverOptions, telemetry: Telemetry) -> ASGIApp:
    """Return the ASGI app for these signals."""
    budget = ByteBudget(options.max_bytes_in_flight)
    large_json_lock = asyncio.Semaphore()
    names = {signal.path: signal.name for signal in signals}
    paths = ", ".join(names)

    def count(request: Request, outcome: str) -> None:
        telemetry.count_request("http", names.get(request.scope["path"], "none"), outcome)

    def reject(request: Request, error: Exception) -> Response:
        """Return the response for a rejected request, in the encoding of the request."""
        status = make_status(error)
        count(request, format_status_code(status))
        headers = {}
        if status.code == UNAVAILABLE:
            headers["Retry-After"] = str(RETRY_AFTER_S)
        if status.code == UNAUTHENTICATED:
            headers["WWW-Authenticate"] = "Bearer"
        return _make_response(status, _choose_response_type(request), _STATUS_CODES[status.code], **headers)

    def make_endpoint(signal: Signal) -> Callable[[Request], Awaitable[Response]]:
        async def export(request: Request) -> Response:
            media_type = _read_media_type(request)
            if media_type not in (PROTOBUF, JSON):
                count(request, "unimplemented")
                problem = _make_status(f"the content type must be {PROTOBUF} or {JSON}, not {media_type or 'empty'}")
                return _make_response(problem, JSON, 415, Accept=f"{PROTOBUF}, {JSON}")
            encoding = request.headers.get("content-encoding", "identity").strip().lower()
            if encoding not in ("identity", "gzip"):
                count(request, "unimplemented")
                problem = _make_status(f"the content encoding must be gzip or identity, not {encoding or 'empty'}")
                return _make_response(problem, media_type, 415, **{"Accept-Encoding": "gzip"})
            try:
                with budget.open_reservation() as reservation:
                    body = await read_body(
                        request, reservation, options.max_message_bytes, decompress=encoding == "gzip"
                    )
                    if media_type == JSON:
                        body = await _convert_json(body, signal, large_json_lock)
                    response = await signal.export(body)
            except REQUEST_ERRORS as error:
                return reject(request, error)
            except ClientDisconnect:
                count(request, "cancelled")
                return Response(status_code=400)  # the client cannot read it
            count(request, format_outcome(response))
            return _make_response(response, media_type, 200)

        return export

    async def reject_path(request: Request, _error: Exception) -> Response:
        return reject(request, PathNotFound(f"no endpoint at {request.scope['path']}; send OTLP by POST to {paths}"))

    async def reject_method(request: Request, _error: Exception) -> Response:
        count(request, "unimplemented")
        problem = _make_status(f"send OTLP by POST; {request.method} is not supported")
        return _make_response(problem, _choose_response_type(request), 405, Allow="POST")

    async def report_bug(request: Request, error: Exception) -> Response:
        count(request, "internal")
        return _make_response(_make_status(f"a bug in spanproof: {error!r}"), _choose_response_type(request), 500)

    def reject_unauthorized(request: Request, admission: Admission) -> Response:
        return reject(request, PermissionDenied() if admission is Admission.FORBIDDEN else Unauthenticated())

    router = Starlette(
        routes=[Route(signal.path, make_endpoint(signal), methods=["POST"]) for signal in signals],
        exception_handlers={404: reject_path, 405: reject_method, 500: report_bug},
    )
    router.router.redirect_slashes = False
    app: ASGIApp = router
    if options.tokens:
        app = TokenMiddleware(app, options.tokens, lambda _request: Role.INGEST, reject_unauthorized)
    if options.cors_origins:  # before the token check: browsers send preflight requests without a token
        app = CORSMiddleware(
            app,
            allow_origins=options.cors_origins,
            allow_methods=["POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
            max_age=_PREFLIGHT_MAX_AGE_S,
        )
    return app


async def _convert_json(body: bytes, signal: Signal, large_json_lock: asyncio.Semaphore) -> bytes:
    """Convert JSON to protobuf in a thread, because it is slow; large bodies one at a time, to limit memory."""
    if len(body) < _LARGE_JSON_BYTES:
        return await asyncio.to_thread(json_to_protobuf, body, signal.request)
    async with large_json_lock:
        return await asyncio.to_thread(json_to_protobuf, body, signal.request)


def _make_status(message: str) -> Status:
    """Return a status without a code, for an error that the HTTP status already identifies."""
    return Status(message=truncate_message(message))


def _read_media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _choose_response_type(request: Request) -> str:
    """Return the encoding of the request, or JSON if it has neither encoding."""
    return PROTOBUF if _read_media_type(request) == PROTOBUF else JSON


def _make_response(message: Message, media_type: str, status: int, **headers: str) -> Response:
    if media_type == PROTOBUF:
        content = message.SerializeToString()
    elif isinstance(message, Status):  # its details need protobuf's JSON mapping of Any and Duration
        content = dump_json(json_format.MessageToDict(message)).encode()
    else:
        content = dump_json(render_message(message)).encode()
    return Response(content, status, headers, media_type)
