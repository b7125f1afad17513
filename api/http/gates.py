"""Gates: ``POST /gate`` runs proofs about stored traces and returns one decision for a pipeline."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, BeforeValidator, Field

from spanproof.api.http.parameters import reject_repeated
from spanproof.api.http.problems import describe_problems
from spanproof.api.http.run_manager import RunManager
from spanproof.api.http.runs import SubmittedProof, await_end, read_submitted, start_submitted_run
from spanproof.api.http.stored_proofs import StoredProofs
from spanproof.assertions.findings.verdict import EXIT_CODES, Outcome
from spanproof.assertions.reports.documents import RunDocument


def _reject_boolean(value: object) -> object:
    """Reject true and false, which Python takes for numbers. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("a number of evaluations is a number")  # noqa: TRY004 (pydantic expects a ValueError)
    return value


Evaluations: TypeAlias = Annotated[int, Field(ge=1, le=100_000), BeforeValidator(_reject_boolean)]


class SubmittedGate(SubmittedProof):
    """Proofs for a gate.

    ``looks`` is the maximum number of evaluations, among which the error is divided, and ``look`` the number of this
    one, from 1. Until the last one, claims that more traces could turn do not fail; without ``look``, no evaluation is
    the last.
    """

    looks: Evaluations = 1
    look: Evaluations | None = Field(default=None, description="The number of this evaluation")

    @property
    def is_last(self) -> bool:
        """Whether no further evaluation follows."""
        return (self.look or 1) >= self.looks


class GateDocument(BaseModel):
    """The result of a gate. ``decided`` is false if more data may still change the outcome."""

    outcome: Outcome
    decided: bool
    exit_code: int
    run: RunDocument


def make_gate_router(run_manager: RunManager, stored: StoredProofs) -> APIRouter:
    """Return the router of gates."""
    router = APIRouter(prefix="/api/v1", tags=["runs"], dependencies=[Depends(reject_repeated)])

    @router.post("/gate", responses=describe_problems(400, 404, 413, 422, 503))
    async def ask_gate(request: Request, submitted: SubmittedGate) -> GateDocument:
        """Run proofs and return the result for a pipeline. The run is cancelled if the client disconnects."""
        module = await asyncio.to_thread(read_submitted, submitted, stored)
        error_share = 1 / Decimal(submitted.looks)  # all evaluations together err no more often than a single one
        run = start_submitted_run(
            run_manager, module, submitted, "gate", error_share, window_grows=not submitted.is_last
        )
        try:
            while True:
                with suppress(TimeoutError):
                    await await_end(run, 0.5)
                    break
                if await request.is_disconnected():
                    run.runner.cancel()
        except asyncio.CancelledError:
            run.runner.cancel()
            raise
        outcome = run.document.outcome or Outcome.ERROR
        decided = outcome is not Outcome.INCONCLUSIVE
        return GateDocument(outcome=outcome, decided=decided, exit_code=EXIT_CODES[outcome], run=run.document)

    return router
