"""OTLP over gRPC. The handlers take and return raw bytes; no message object is built for a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc.error_details_pb2 import RetryInfo

from spanproof.collector.receive.authentication import Admission, Role
from spanproof.collector.receive.signals import format_outcome
from spanproof.collector.receive.status import (
    REQUEST_ERRORS,
    PermissionDenied,
    Unauthenticated,
    format_status_code,
    make_status,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.rpc.status_pb2 import Status

    from spanproof.collector.receive.authentication import AccessTokens
    from spanproof.collector.receive.receiver_options import ReceiverOptions
    from spanproof.collector.receive.signals import Signal
    from spanproof.collector.storage.telemetry import Telemetry

    _Handler = grpc.RpcMethodHandler[Any, Any]

_FRAME_BYTES = 2**20
_CODES_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def make_grpc_server(signals: Sequence[Signal], options: ReceiverOptions, telemetry: Telemetry) -> grpc.aio.Server:
    """Return a server for these signals, not yet bound to a port; requires a running event loop."""
    server = grpc.aio.server(
        interceptors=[_TokenInterceptor(options.tokens, signals, telemetry)] if options.tokens else [],
        options=[
            # otherwise, a second collector on this port would silently receive every other connection
            ("grpc.so_reuseport", 0),
            # applies to the compressed and to the decompressed message
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # a request of 512 spans arrives in one frame instead of a dozen
            ("grpc.http2.max_frame_size", _FRAME_BYTES),
            ("grpc.http2.lookahead_bytes", _FRAME_BYTES),
            ("grpc.max_allowed_incoming_connections", options.max_connections),
            ("grpc.server_handshake_timeout_ms", int(options.receive_timeout_s * 1000)),
        ],
    )
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                signal.service, {"Export": grpc.unary_unary_rpc_method_handler(_make_handler(signal, telemetry))}
            )
            for signal in signals
        ]
    )
    return server


def _make_handler(signal: Signal, telemetry: Telemetry) -> Callable[[bytes, Any], Awaitable[bytes]]:
    def count(outcome: str) -> None:
        telemetry.count_request("grpc", signal.name, outcome)

    async def export(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            response = await signal.export(body)
        except asyncio.CancelledError:  # the sender has disconnected; its spans are still stored
            count("cancelled")
            raise
        except REQUEST_ERRORS as error:
            status = make_status(error)
            count(format_status_code(status))
            await context.abort(_CODES_BY_NUMBER[status.code], status.message, _make_trailing_metadata(status))
        count(format_outcome(response))
        return bytes(response.SerializeToString())

    return export


class _TokenInterceptor(grpc.aio.ServerInterceptor):
    """Interceptor that rejects requests without a suitable token before the message is read."""

    def __init__(self, tokens: AccessTokens, signals: Sequence[Signal], telemetry: Telemetry) -> None:
        self._tokens = tokens
        self._signals = {f"/{signal.service}/Export": signal.name for signal in signals}
        self._telemetry = telemetry

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        values = [value for name, value in details.invocation_metadata if name == "authorization"]
        admissions = {self._tokens.authorize(value, Role.INGEST) for value in values if isinstance(value, str)}
        if Admission.GRANTED in admissions:
            return await continuation(details)
        status = make_status(PermissionDenied() if Admission.FORBIDDEN in admissions else Unauthenticated())
        self._telemetry.count_request("grpc", self._signals.get(details.method, "none"), format_status_code(status))

        async def reject(_requests: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            await context.abort(_CODES_BY_NUMBER[status.code], status.message, _make_trailing_metadata(status))

        # a stream handler, because it does not wait for a request
        return grpc.stream_unary_rpc_method_handler(reject)


def _make_trailing_metadata(status: Status) -> tuple[tuple[str, bytes], ...]:
    """Return the status details, and RetryInfo under a key of its own, which some clients read."""
    retry = RetryInfo()
    retry_metadata = [
        ("google.rpc.retryinfo-bin", retry.SerializeToString()) for detail in status.details if detail.Unpack(retry)
    ]
    return (*retry_metadata, ("grpc-status-details-bin", status.SerializeToString()))
