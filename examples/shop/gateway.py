"""The gateway: what customers talk to, and where faults come in."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from opentelemetry import trace

from spanproof.examples.shop import faults
from spanproof.examples.shop.service import connect


@dataclass(frozen=True, slots=True)
class Checkout:
    """A cart to be paid; the amount is in cents."""

    cart: str
    amount: int


async def take_headers(
    x_user: Annotated[str, Header()] = "anonymous", x_fault: Annotated[str, Header(alias=faults.HEADER)] = ""
) -> None:
    """Note the user in the span and send the faults on their way."""
    trace.get_current_span().set_attribute("user.id", x_user)
    faults.pass_on(x_fault)


router = APIRouter(dependencies=[Depends(take_headers)])


@router.post("/checkout", status_code=201)
async def check_out(checkout: Checkout) -> dict[str, Any]:
    response = await connect("orders").post("/orders", json=asdict(checkout))
    return {"order": response.raise_for_status().json()}


@router.get("/orders/{order_id}")
async def read_order(order_id: str) -> dict[str, Any]:
    response = await connect("orders").get(f"/orders/{order_id}")
    return {"order": response.raise_for_status().json()}
