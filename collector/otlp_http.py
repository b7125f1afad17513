"""OTLP over HTTP: an ASGI app for /v1/traces, /v1/logs and /v1/metrics, in protobuf or JSON."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

from google.rpc.code_pb2 import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE
from google.rpc.status_pb2 import Status
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from spanproof.collector.decode import Undecodable
from spanproof.collector.ingest import RETRY_AFTER_S, Backpressure
from spanproof.collector.otlp_json import InvalidJson, dump_json, json_to_protobuf, render_message
from spanproof.collector.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from google.protobuf.message import Message

    from spanproof.collector.signals import Signal

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

_PATHS = {"trace": "/v1/traces", "logs": "/v1/logs", "metrics": "/v1/metrics"}
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class _TooLarge(Exception):
    """The body, as sent or once unpacked, is larger than the limit."""


def make_app(signals: Iterable[Signal], *, max_message_bytes: int) -> Starlette:
    """Make the app for these signals."""
    return Starlette(
        routes=[
            Route(_PATHS[signal.name], _make_endpoint(signal, max_message_bytes), methods=["POST"])
            for signal in signals
        ]
    )


def _make_endpoint(signal: Signal, limit: int) -> Callable[[Request], Awaitable[Response]]:
    async def export(request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (PROTOBUF, JSON):
            return PlainTextResponse(f"the content type is to be {PROTOBUF} or {JSON}", 415)
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            return PlainTextResponse("the content encoding is to be gzip or identity", 415)
        try:
            body = await _read_body(request, limit, unpack=encoding == "gzip")
            if media_type == JSON:
                # off the event loop: what is large takes a while in Python
                body = await asyncio.to_thread(json_to_protobuf, body, signal.request)
            response = await signal.export(body)
        except _TooLarge:
            problem = Status(code=RESOURCE_EXHAUSTED, message=f"the request is larger than {limit} bytes")
            return _respond(problem, media_type, 413)
        except (InvalidJson, Undecodable) as error:
            return _respond(Status(code=INVALID_ARGUMENT, message=str(error)), media_type, 400)
        except (Backpressure, StoreError) as error:
            answer = _respond(Status(code=UNAVAILABLE, message=str(error)), media_type, 503)
            answer.headers["Retry-After"] = str(RETRY_AFTER_S)
            return answer
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is left to read it
        return _respond(response, media_type, 200)

    return export


async def _read_body(request: Request, limit: int, *, unpack: bool) -> bytes:
    """Read the body, refusing it as soon as it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _TooLarge
    return _unpack(bytes(body), limit) if unpack else bytes(body)


def _unpack(body: bytes, limit: int) -> bytes:
    unpacked = bytearray()
    while body:  # one gzip member after the other
        member = zlib.decompressobj(_GZIP_WINDOW)
        try:
            unpacked += member.decompress(body, limit - len(unpacked) + 1)
        except zlib.error as error:
            raise Undecodable(f"the body is not gzip: {error}") from None
        if len(unpacked) > limit:
            raise _TooLarge
        if not member.eof:
            raise Undecodable("the body is not gzip: it ends too early")
        body = member.unused_data
    return bytes(unpacked)


def _respond(message: Message, media_type: str, status: int) -> Response:
    """Answer in the encoding of the request."""
    if media_type == JSON:
        return Response(dump_json(render_message(message)), status, media_type=JSON)
    return Response(message.SerializeToString(), status, media_type=PROTOBUF)
