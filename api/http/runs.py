"""Runs of proofs, and gates, over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema, model_validator

from spanproof.api.http.pagination import BoundedInt, read_cursor, write_cursor
from spanproof.api.http.parameters import HOUR_NS, Cursor, DurationNs, Limit, QueryParameters, reject_repeated
from spanproof.api.http.problems import ProblemError, ResponseDocs, describe_problems
from spanproof.api.http.query_executor import QueryExecutor
from spanproof.api.http.run_manager import ActiveRun, RunManager
from spanproof.api.http.stored_proofs import StoredProofs
from spanproof.assertions.findings.verdict import EXIT_CODES, Outcome
from spanproof.assertions.judge.gate_error import divide_error
from spanproof.assertions.reports import history
from spanproof.assertions.reports.documents import RunDocument
from spanproof.assertions.reports.junit import render_junit
from spanproof.collector.user_errors import StoreError
from spanproof.query_lang.check.modules import ProofModule
from spanproof.query_lang.check.submitted_proofs import read_submitted_proof

RunId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="16 hexadecimal digits")]
EXAMPLE_PROOF = """proof "release 1.4.2 is healthy" {
  given traces from gateway over last 15m where resource.service.version == "1.4.2"
  expect error_rate(gateway) < 1% with confidence 95%
}"""
DAY_NS = 24 * HOUR_NS
_PRINTABLE_PATTERN = r"^[^\x00-\x1f]+$"
_ANY_ADAPTER = TypeAdapter(Any)
_POSITION_ADAPTER = TypeAdapter(tuple[BoundedInt, str])
_NOT_MODIFIED: ResponseDocs = {304: {"description": "It is as you know it"}}
_XML_RESPONSE: ResponseDocs = {200: {"content": {"application/xml": {"schema": {"type": "string"}}}}}


class SubmittedProof(BaseModel):
    """Proofs to carry out, as text or by the name of a stored file of them, and values for their ``let``s."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"proof": EXAMPLE_PROOF}],
            "oneOf": [{"required": ["proof"]}, {"required": ["stored"]}],
        },
    )

    # either may be left out, but has no value then
    proof: str = Field(default_factory=str, max_length=2**20, min_length=1, json_schema_extra={"format": "proof"})
    stored: str = Field(
        default_factory=str,
        max_length=1000,
        pattern=_PRINTABLE_PATTERN,
        description="of those that `/proofs/stored` lists",
    )
    variables: dict[str, str] = {}
    name: str = Field(
        default_factory=str,
        max_length=200,
        pattern=_PRINTABLE_PATTERN,
        description="how reports call it; `sent.proof`, or as it is stored, unless told",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.proof) == bool(self.stored):
            raise ValueError("give either `proof`, a text, or `stored`, the name of a file")
        return self


class SubmittedGate(SubmittedProof):
    """Proofs for a gate. ``looks`` is how often it will be asked at most; their error is shared out among these."""

    looks: int = Field(default=1, ge=1, le=100_000)


class GateDocument(BaseModel):
    """What a gate says. ``decided`` is false where more data may still decide."""

    outcome: Outcome
    decided: bool
    exit_code: int
    run: RunDocument


class WaitParameters(QueryParameters):
    """How long to wait for the end of a run."""

    wait: DurationNs = None


class RunListParameters(QueryParameters):
    """Which runs are meant."""

    outcome: Annotated[Outcome | None, WithJsonSchema({"type": "string", "enum": list(Outcome)})] = None
    limit: Limit = 100
    cursor: Cursor = None


class PeriodParameters(QueryParameters):
    """Since when; the last thirty days unless told."""

    last: DurationNs = None

    def compute_since_ns(self) -> int:
        """Return when that begins."""
        return time.time_ns() - (30 * DAY_NS if self.last is None else self.last)


class PeriodStepParameters(PeriodParameters):
    """Since when, and by which steps of time; days unless told."""

    every: DurationNs = None


class RunsPage(BaseModel):
    """Runs, the newest first; `next` leads on to those before."""

    runs: list[history.RunSummary]
    next: str | None


def make_runs_router(executor: QueryExecutor, run_manager: RunManager, stored: StoredProofs) -> APIRouter:
    """Make the routes of runs."""
    router = APIRouter(prefix="/api/v1", tags=["runs"], dependencies=[Depends(reject_repeated)])

    @router.post(
        "/runs", status_code=201, response_model=RunDocument, responses=describe_problems(400, 404, 413, 422, 503)
    )
    async def start_run(
        response: Response, sent: SubmittedProof, asked: Annotated[WaitParameters, Query()]
    ) -> RunDocument:
        """Carry out proofs. The answer comes at once, or after `wait` at most; `/runs/{id}/events` tells the rest."""
        module = await asyncio.to_thread(_read_submitted, sent, stored)
        run = _start_run(run_manager, module, sent, "api")
        response.headers["Location"] = f"/api/v1/runs/{run.document.id}"
        with suppress(TimeoutError):
            await _await_end(run, (asked.wait or 0) / 1e9)
        return run.document

    @router.get("/runs", responses=describe_problems(422, 503))
    async def list_runs(request: Request, asked: Annotated[RunListParameters, Query()]) -> RunsPage:
        """List runs, the newest first."""
        before = None if asked.cursor is None else read_cursor(asked, asked.cursor, _POSITION_ADAPTER)
        runs = await executor.execute(
            request,
            lambda connection: history.list_runs(connection, asked.limit, before, asked.outcome),
            derive_first=False,
        )
        last = write_cursor(asked, (runs[-1].started_ns, runs[-1].id)) if len(runs) == asked.limit else None
        return RunsPage(runs=runs, next=last)

    async def find_run(request: Request, run_id: str) -> RunDocument:
        running = run_manager.find_run(run_id)
        if running is not None:
            return running.document
        found = await executor.execute(
            request, lambda connection: history.read_run(connection, run_id), derive_first=False
        )
        if found is None:
            raise ProblemError(404, "no such run", f"there is no run {run_id}")
        return found

    @router.get(
        "/runs/{run_id}", response_model=RunDocument, responses=_NOT_MODIFIED | describe_problems(404, 422, 503)
    )
    async def read_run(request: Request, run_id: RunId) -> Response:
        """Fetch a run with its verdicts; one that has ended never changes."""
        run = await find_run(request, run_id)
        headers = {}
        if run.ended_ns is not None:
            headers = {"ETag": f'"{run.id}-{run.ended_ns}"', "Cache-Control": "private, max-age=31536000, immutable"}
            if headers["ETag"] in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
        return Response(_ANY_ADAPTER.dump_json(run), headers=headers, media_type="application/json")

    async def find_any(request: Request, run_id: RunId) -> ActiveRun | RunDocument:
        return run_manager.find_run(run_id) or await find_run(request, run_id)

    @router.get("/runs/{run_id}/events", response_class=EventSourceResponse, responses=describe_problems(404, 422, 503))
    async def stream_run(
        request: Request,
        run: Any = Depends(find_any),  # noqa: B008 (a local name has no place in an annotation)
    ) -> AsyncIterator[ServerSentEvent]:
        """Stream what happens in a run, from its beginning, or from behind `Last-Event-ID`; the last is `run`."""
        last = request.headers.get("last-event-id", "")
        begin = int(last) + 1 if last.isdecimal() else 0
        if isinstance(run, RunDocument):
            yield ServerSentEvent(event="run", data=_to_json(run))
            return
        async for place, message in run.listen(begin):
            yield ServerSentEvent(event=message.name, id=str(place), data=_to_json(message.data))

    @router.get(
        "/runs/{run_id}/junit", response_class=Response, responses=_XML_RESPONSE | describe_problems(404, 409, 422, 503)
    )
    async def read_junit(request: Request, run_id: RunId) -> Response:
        """Fetch a run that has ended as JUnit XML."""
        run = await find_run(request, run_id)
        if run.ended_ns is None:
            raise ProblemError(409, "not ended", f"run {run_id} goes on")
        return Response(render_junit(run), media_type="application/xml")

    @router.post("/runs/{run_id}/cancel", status_code=202, responses=describe_problems(404, 422))
    async def cancel_run(request: Request, run_id: RunId) -> RunDocument:
        """End a run that goes on; one that has ended stays as it is."""
        running = run_manager.find_run(run_id)
        if running is not None:
            running.runner.cancel()
        return await find_run(request, run_id)

    @router.post("/gate", responses=describe_problems(400, 404, 413, 422, 503))
    async def ask_gate(request: Request, sent: SubmittedGate) -> GateDocument:
        """Carry out proofs and say what a pipeline is to make of them. It ends when the client goes away."""
        module = await asyncio.to_thread(_read_submitted, sent, stored)
        run = _start_run(run_manager, module, sent, "gate", divide_error(module, sent.looks))
        try:
            while True:
                with suppress(TimeoutError):
                    await _await_end(run, 0.5)
                    break
                if await request.is_disconnected():
                    run.runner.cancel()
        except asyncio.CancelledError:
            run.runner.cancel()
            raise
        outcome = run.document.outcome or Outcome.ERROR
        decided = outcome is not Outcome.INCONCLUSIVE
        return GateDocument(outcome=outcome, decided=decided, exit_code=EXIT_CODES[outcome], run=run.document)

    @router.get("/proofs", responses=describe_problems(422, 503))
    async def list_proofs(request: Request, asked: Annotated[PeriodParameters, Query()]) -> list[history.ProofHistory]:
        """Say of each proof how it fared: since when it fails, whether it is flaky, how long it takes."""
        return await executor.execute(
            request,
            lambda connection: history.list_proof_histories(connection, asked.compute_since_ns()),
            derive_first=False,
        )

    @router.get("/failures", responses=describe_problems(422, 503))
    async def count_failures(
        request: Request, asked: Annotated[PeriodStepParameters, Query()]
    ) -> list[history.FailureCount]:
        """Count what proofs did not pass for, by steps of time."""
        step_ns = max(1, asked.every or DAY_NS)
        return await executor.execute(
            request,
            lambda connection: history.count_failures(connection, asked.compute_since_ns(), step_ns),
            derive_first=False,
        )

    return router


def _read_submitted(submitted: SubmittedProof, stored: StoredProofs) -> ProofModule:
    if submitted.stored:
        module = stored.read(submitted.stored, submitted.name or submitted.stored)
    else:
        module = read_submitted_proof(submitted.proof, submitted.name or "sent.proof", allow_requests=stored.may_send)
    if module.diagnostics:
        raise ProblemError.from_diagnostics("proof", module.file.text, module.diagnostics)
    if not module.proofs:
        raise ProblemError(422, "the proof cannot be used", "there is no proof in the text")
    return module


def _start_run(
    run_manager: RunManager,
    module: ProofModule,
    submitted: SubmittedProof,
    origin: str,
    error_share: Decimal = Decimal(1),
) -> ActiveRun:
    try:
        return run_manager.start_run(module, submitted.variables, origin, error_share)
    except StoreError as error:
        raise ProblemError(503, "not ready", str(error)) from None


async def _await_end(run: ActiveRun, timeout_s: float) -> None:
    """Wait for the end of a run. Raises TimeoutError."""

    async def listen() -> None:
        async for _ in run.listen():
            pass

    await asyncio.wait_for(listen(), timeout_s)


def _to_json(data: object) -> Any:
    return json.loads(_ANY_ADAPTER.dump_json(data))
