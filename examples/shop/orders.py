"""The orders service: stores orders, checks the stock, charges them, and publishes a message."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, HTTPException, Request

from spanproof.examples.shop import faults
from spanproof.examples.shop.database import Database
from spanproof.examples.shop.messages import ORDER_CREATED, Broker, connect_broker
from spanproof.examples.shop.service import connect


@dataclass(frozen=True, slots=True)
class NewOrder:
    """The cart that a customer buys; the amount is in cents."""

    cart: str
    amount: int


@asynccontextmanager
async def open_stores(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with connect_broker() as broker:
        yield {"broker": broker, "database": Database()}


router = APIRouter(lifespan=open_stores)


@router.post("/orders", status_code=201)
async def create_order(order: NewOrder, request: Request) -> dict[str, Any]:
    database: Database = request.state.database
    broker: Broker = request.state.broker
    order_id = uuid.uuid4().hex
    database.execute("INSERT orders", "INSERT INTO orders VALUES (?, ?, ?, 'new')", order_id, order.cart, order.amount)
    await _check_stock(order.cart)
    try:
        paid_by = await _charge(order_id, order.amount)
    except httpx.HTTPError:
        _set_state(database, order_id, "unpaid")
        raise
    _set_state(database, order_id, "paid")
    if not faults.is_active("notifications", "off"):
        await broker.publish(ORDER_CREATED, order_id, {"order": order_id, "amount": order.amount})
    return {"id": order_id, "state": "paid", "paid_by": paid_by}


@router.get("/orders/{order_id}")
async def read_order(order_id: str, request: Request) -> dict[str, Any]:
    database: Database = request.state.database
    rows = database.execute("SELECT orders", "SELECT id, cart, amount, state FROM orders WHERE id = ?", order_id)
    if not rows:
        raise HTTPException(404, f"no order `{order_id}`")
    return rows[0]


async def _check_stock(cart: str) -> None:
    inventory = "inventory-legacy" if faults.is_active("inventory", "legacy") else "inventory"
    # A cart is a single bundle in this shop, so its name is also the stock-keeping unit.
    response = await connect(inventory).get(f"/stock/{cart}")
    response.raise_for_status()


async def _charge(order_id: str, amount: int) -> str:
    response = await connect("payments").post("/charge", json={"order_id": order_id, "amount": amount})
    return str(response.raise_for_status().json()["bank"])


def _set_state(database: Database, order_id: str, state: str) -> None:
    database.execute("UPDATE orders", "UPDATE orders SET state = ? WHERE id = ?", state, order_id)
