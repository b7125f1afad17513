"""Messages over NATS, traced from the sender to the receiver."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from opentelemetry import propagate
from opentelemetry.trace import SpanKind

from spanproof.examples.shop.services import NATS_URL_VARIABLE
from spanproof.examples.shop.telemetry import tracer

ORDER_CREATED = "order.created"
MESSAGE_ID = "Nats-Msg-Id"


class Broker:
    """A connection to NATS that sends and receives with spans."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(self, subject: str, message_id: str, body: dict[str, Any]) -> None:
        """Send one message, with a PRODUCER span whose context is propagated in the headers."""
        attributes = _describe(subject, message_id, name="publish", kind="send")
        with tracer.start_as_current_span(f"publish {subject}", kind=SpanKind.PRODUCER, attributes=attributes):
            headers = {MESSAGE_ID: message_id}
            propagate.inject(headers)
            await self._client.publish(subject, json.dumps(body).encode(), headers=headers)

    async def subscribe(self, subject: str, handle: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Call `handle` for each message on a subject, in a CONSUMER span that is a child of the sender's span."""

        async def receive(message: Msg) -> None:
            headers = message.headers or {}
            attributes = _describe(subject, headers.get(MESSAGE_ID, ""), name="process", kind="process")
            with tracer.start_as_current_span(
                f"process {subject}",
                context=propagate.extract(headers),
                kind=SpanKind.CONSUMER,
                attributes=attributes,
            ):
                await handle(json.loads(message.data))

        await self._client.subscribe(subject, cb=receive)
        await self._client.flush()  # after it returns, the server has registered the subscription


def _describe(subject: str, message_id: str, *, name: str, kind: str) -> dict[str, str]:
    return {
        "messaging.system": "nats",
        "messaging.destination.name": subject,
        "messaging.message.id": message_id,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }


@asynccontextmanager
async def connect_broker() -> AsyncIterator[Broker]:
    """Connect to the NATS server named in the environment."""
    if NATS_URL_VARIABLE not in os.environ:
        raise RuntimeError(f"set {NATS_URL_VARIABLE} to the address of a NATS server")
    client = await nats.connect(os.environ[NATS_URL_VARIABLE])
    try:
        yield Broker(client)
    finally:
        await client.close()
