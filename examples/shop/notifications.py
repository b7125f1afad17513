"""The notifications service: renders a mail to the customer when an order is created."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

from spanproof.examples.shop.messages import ORDER_CREATED, connect_broker
from spanproof.examples.shop.telemetry import tracer


@asynccontextmanager
async def listen(_: FastAPI) -> AsyncIterator[None]:
    async with connect_broker() as broker:
        await broker.subscribe(ORDER_CREATED, notify)
        yield


async def notify(order: dict[str, Any]) -> None:
    with tracer.start_as_current_span("render mail") as span:
        mail = f"Thank you for your order {order['order']}."
        span.add_event("mail rendered", {"mail.characters": len(mail)})


router = APIRouter(lifespan=listen)
