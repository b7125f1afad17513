"""Trigger that publishes to NATS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from anyio.from_thread import start_blocking_portal
from nats.aio.client import Client
from nats.errors import Error as NatsError

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.message import describe_error, make_tls_context, read_broker_address, read_message
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse

DEFAULT_BROKER: Final = "nats://127.0.0.1:4222"
CLOSE_TIMEOUT_S: Final = 0.5
DEFAULT_PORTS: Final = {"nats": 4222, "tls": 4222}


@contextmanager
def open_broker(request: TriggerRequest) -> Iterator[SendRequest]:
    """Connect, and yield a function that publishes once and returns when the server has the message."""
    address, subject, timeout = (
        read_broker_address(request, DEFAULT_BROKER, DEFAULT_PORTS),
        request.read_target(1),
        request.read_timeout_s(),
    )
    content, headers = read_message(request)
    tls = make_tls_context(request, address)
    client, connected = Client(), False
    server_errors: list[Exception] = []  # the server reports errors asynchronously

    async def handle_error(error: Exception) -> None:
        if not connected:
            raise error  # else the client would retry until the timeout
        server_errors.append(error)

    async def connect() -> None:
        nonlocal connected
        options: dict[str, Any] = {"tls": tls, "tls_hostname": address.tls_name} if tls is not None else {}
        options |= {"allow_reconnect": False, "connect_timeout": timeout, "error_cb": handle_error}
        try:
            await asyncio.wait_for(client.connect(address.url, **options), timeout)
        finally:
            connected = True
            if not client.is_connected:
                await close()

    async def close() -> None:
        with suppress(TimeoutError):  # after a failed TLS handshake, close() would never return
            await asyncio.wait_for(client.close(), CLOSE_TIMEOUT_S)

    async def publish(context: TraceContext) -> None:
        await client.publish(subject, content, headers=context.merge_headers(headers))
        await client.flush(timeout)  # type: ignore[arg-type]  # fractions of a second work

    with start_blocking_portal() as portal:
        try:
            portal.call(connect)
        except (NatsError, OSError, TimeoutError) as error:
            raise TriggerFailed(f"NATS at {address.display_name} cannot be reached: {describe_error(error)}") from None

        def send(context: TraceContext) -> TriggerResponse:
            started_ns = time.perf_counter_ns()
            try:
                portal.call(publish, context)
            except (NatsError, OSError, TimeoutError, ValueError) as error:
                server_errors.append(error)
            if server_errors:
                raise TriggerFailed(
                    f"NATS at {address.display_name} did not accept the message: {describe_error(server_errors[0])}"
                )
            return TriggerResponse(0, "", time.perf_counter_ns() - started_ns)

        try:
            yield send
        finally:
            portal.call(close)
