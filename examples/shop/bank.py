"""The bank service, which also runs as the backup bank under another name."""

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
    """A transfer of money; the amount is in cents."""

    amount: int


router = APIRouter()
rejections: Counter[str] = Counter()


@router.post("/transfers", status_code=201)
async def transfer(transfer: Transfer, request: Request, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    name = request.app.title
    fault = faults.find("bank")
    # Only `down` affects both banks.
    if fault and (name == "bank" or fault.mode == "down"):
        await _apply_fault(fault, idempotency_key)
    await asyncio.sleep(TRANSFER_S)
    if transfer.amount > LIMIT:
        raise HTTPException(402, "declined: over the limit of the card")
    return {"bank": name, "transfer": uuid.uuid4().hex}


async def _apply_fault(fault: faults.Fault, idempotency_key: str) -> None:
    if fault.mode in ("503", "down"):
        raise HTTPException(503, "the bank is closed")
    if fault.mode == "flaky" and rejections[idempotency_key] < fault.times:
        rejections[idempotency_key] += 1
        raise HTTPException(503, "the bank is busy")
    rejections.pop(idempotency_key, None)
    await asyncio.sleep(fault.delay_ns / 1e9)
