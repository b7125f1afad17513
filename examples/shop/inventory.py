"""The inventory service, which also runs as the legacy inventory under another name."""

import asyncio

from fastapi import APIRouter

from spanproof.examples.shop import faults

LOOK_UP_S = 0.005
router = APIRouter()


@router.get("/stock/{sku}")
async def read_stock(sku: str) -> dict[str, str | int]:
    fault = faults.find("inventory")
    delay_ns = fault.delay_ns if fault else 0
    await asyncio.sleep(LOOK_UP_S + delay_ns / 1e9)
    return {"sku": sku, "stock": 7}
