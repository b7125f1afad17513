"""The payments service: calls the bank up to three times, then the backup bank."""

from dataclasses import dataclass

import httpx
from fastapi import APIRouter
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from spanproof.examples.shop.service import connect
from spanproof.examples.shop.telemetry import tracer

BANK_TIMEOUT_S = 0.3
ATTEMPTS = 3
FIRST_WAIT_S = 0.1

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge for an order; the amount is in cents."""

    order_id: str
    amount: int


@router.post("/charge")
async def charge(charge: Charge) -> dict[str, str]:
    with tracer.start_as_current_span("validate charge", attributes={"shop.amount": charge.amount}):
        key = f"order-{charge.order_id}"
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=FIRST_WAIT_S),
            reraise=True,
        ):
            with attempt:
                return await _transfer("bank", charge.amount, key, attempt.retry_state.attempt_number - 1)
    except httpx.HTTPError as error:
        if not _is_transient(error):
            raise
    return await _transfer("bank-backup", charge.amount, key)


async def _transfer(bank: str, amount: int, key: str, resend_count: int = 0) -> dict[str, str]:
    response = await connect(bank).post(
        "/transfers",
        json={"amount": amount},
        headers={"idempotency-key": key},  # so that a bank can distinguish a retry from a second payment
        timeout=BANK_TIMEOUT_S,
        extensions={"resend_count": resend_count},
    )
    receipt: dict[str, str] = response.raise_for_status().json()
    return receipt


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, httpx.TransportError)
