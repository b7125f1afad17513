"""The gateway: the service for customers, which also reads the faults."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from opentelemetry import trace

from spanproof.examples.shop import faults
from spanproof.examples.shop.service import connect


@dataclass(frozen=True, slots=True)
class Checkout:
    """A cart to pay; the amount is in cents."""

    cart: str
    amount: int


async def read_headers(
    x_user: Annotated[str, Header()] = "anonymous", x_fault: Annotated[str, Header(alias=faults.HEADER)] = ""
) -> None:
    """Record the user in the span and propagate the faults."""
    trace.get_current_span().set_attribute("user.id", x_user)
    faults.propagate(x_fault)


router = APIRouter(dependencies=[Depends(read_headers)])


@router.post("/checkout", status_code=201)
async def check_out(checkout: Checkout) -> dict[str, Any]:
    response = await connect("orders").post("/orders", json=asdict(checkout))
    return {"order": response.raise_for_status().json()}


@router.get("/orders/{order_id}")
async def read_order(order_id: str) -> dict[str, Any]:
    response = await connect("orders").get(f"/orders/{order_id}")
    return {"order": response.raise_for_status().json()}
