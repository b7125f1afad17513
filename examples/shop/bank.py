"""The bank, and under its other name the backup bank."""

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request

from spanproof.examples.shop import faults

TRANSFER_S = 0.02
LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money to be moved, in cents."""

    amount: int


router = APIRouter()
refused: Counter[str] = Counter()


@router.post("/transfers", status_code=201)
async def transfer(transfer: Transfer, request: Request, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    name = request.app.title
    fault = faults.find("bank")
    # Only `down` concerns both banks.
    if fault and (name == "bank" or fault.mode == "down"):
        await _misbehave(fault, idempotency_key)
    await asyncio.sleep(TRANSFER_S)
    if transfer.amount > LIMIT:
        raise HTTPException(402, "declined: over the limit of the card")
    return {"bank": name, "transfer": uuid.uuid4().hex}


async def _misbehave(fault: faults.Fault, idempotency_key: str) -> None:
    if fault.mode in ("503", "down"):
        raise HTTPException(503, "the bank is closed")
    if fault.mode == "flaky" and refused[idempotency_key] < fault.times:
        refused[idempotency_key] += 1
        raise HTTPException(503, "the bank is busy")
    refused.pop(idempotency_key, None)
    await asyncio.sleep(fault.delay_ns / 1e9)
