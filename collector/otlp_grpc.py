"""OTLP over gRPC. The handlers take and give raw bytes; no message is built on the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from spanproof.collector.decode import Undecodable
from spanproof.collector.ingest import RETRY_AFTER_S, Backpressure
from spanproof.collector.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from spanproof.collector.signals import Signal


def make_server(signals: Iterable[Signal], *, max_message_bytes: int) -> grpc.aio.Server:
    """Make a server for these signals, bound to no port yet; needs a running event loop."""
    server = grpc.aio.server(
        options=[
            # with it, a second collector on this port would silently get every other connection
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
        ]
    )
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                signal.service, {"Export": grpc.unary_unary_rpc_method_handler(_make_handler(signal))}
            )
            for signal in signals
        ]
    )
    return server


def _make_handler(signal: Signal) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def export(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            response = await signal.export(body)
        except Undecodable as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (Backpressure, StoreError) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error), _retry_metadata(str(error)))
        return bytes(response.SerializeToString())

    return export


def _retry_metadata(message: str) -> tuple[tuple[str, bytes], ...]:
    """Say when to try again, in both places that exporters look."""
    retry = RetryInfo()
    retry.retry_delay.seconds = RETRY_AFTER_S
    detail = AnyMessage()
    detail.Pack(retry)
    status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=message, details=[detail])
    return (
        ("google.rpc.retryinfo-bin", retry.SerializeToString()),
        ("grpc-status-details-bin", status.SerializeToString()),
    )
