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

from spanproof.api.asking import Asker
from spanproof.api.paging import Whole, read_cursor, write_cursor
from spanproof.api.parameters import HOUR_NS, Cursor, DurationNs, Limit, Question, refuse_repeated
from spanproof.api.problems import ProblemError, Responses, describe_problems
from spanproof.api.run_keeper import Run, RunKeeper
from spanproof.api.stored_proofs import StoredProofs
from spanproof.assertions import history
from spanproof.assertions.documents import RunDocument
from spanproof.assertions.gate import share_error
from spanproof.assertions.reports.junit import render_junit
from spanproof.assertions.verdict import EXIT_CODES, Outcome
from spanproof.collector.store import StoreError
from spanproof.query_lang.modules import Module
from spanproof.query_lang.sent import read_sent

RunId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="16 hexadecimal digits")]
PROOF = """proof "release 1.4.2 is healthy" {
  given traces from gateway over last 15m where resource.service.version == "1.4.2"
  expect error_rate(gateway) < 1% with confidence 95%
}"""
DAY_NS = 24 * HOUR_NS
_PRINTED = r"^[^\x00-\x1f]+$"
_ANY = TypeAdapter(Any)
_PLACE = TypeAdapter(tuple[Whole, str])
_AS_KNOWN: Responses = {304: {"description": "It is as you know it"}}
_AS_XML: Responses = {200: {"content": {"application/xml": {"schema": {"type": "string"}}}}}


class SentProof(BaseModel):
    """Proofs to carry out, as text or by the name of a stored file of them, and values for their ``let``s."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"proof": PROOF}],
            "oneOf": [{"required": ["proof"]}, {"required": ["stored"]}],
        },
    )

    # either may be left out, but has no value then
    proof: str = Field(default_factory=str, max_length=2**20, min_length=1, json_schema_extra={"format": "proof"})
    stored: str = Field(
        default_factory=str, max_length=1000, pattern=_PRINTED, description="of those that `/proofs/stored` lists"
    )
    variables: dict[str, str] = {}
    name: str = Field(
        default_factory=str,
        max_length=200,
        pattern=_PRINTED,
        description="how reports call it; `sent.proof`, or as it is stored, unless told",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.proof) == bool(self.stored):
            raise ValueError("give either `proof`, a text, or `stored`, the name of a file")
        return self


class SentGate(SentProof):
    """Proofs for a gate. ``looks`` is how often it will be asked at most; their error is shared out among these."""

    looks: int = Field(default=1, ge=1, le=100_000)


class GateDocument(BaseModel):
    """What a gate says. ``decided`` is false where more data may still decide."""

    outcome: Outcome
    decided: bool
    exit_code: int
    run: RunDocument


class Waiting(Question):
    """How long to wait for the end of a run."""

    wait: DurationNs = None


class RunSearch(Question):
    """Which runs are meant."""

    outcome: Annotated[Outcome | None, WithJsonSchema({"type": "string", "enum": list(Outcome)})] = None
    limit: Limit = 100
    cursor: Cursor = None


class Past(Question):
    """Since when; the last thirty days unless told."""

    last: DurationNs = None

    def since_ns(self) -> int:
        """Return when that begins."""
        return time.time_ns() - (30 * DAY_NS if self.last is None else self.last)


class PastSteps(Past):
    """Since when, and by which steps of time; days unless told."""

    every: DurationNs = None


class RunsPage(BaseModel):
    """Runs, the newest first; `next` leads on to those before."""

    runs: list[history.RunSummary]
    next: str | None


def make_runs_router(asker: Asker, keeper: RunKeeper, stored: StoredProofs) -> APIRouter:
    """Make the routes of runs."""
    router = APIRouter(prefix="/api/v1", tags=["runs"], dependencies=[Depends(refuse_repeated)])

    @router.post(
        "/runs", status_code=201, response_model=RunDocument, responses=describe_problems(400, 404, 413, 422, 503)
    )
    async def start_run(response: Response, sent: SentProof, asked: Annotated[Waiting, Query()]) -> RunDocument:
        """Carry out proofs. The answer comes at once, or after `wait` at most; `/runs/{id}/events` tells the rest."""
        module = await asyncio.to_thread(_read, sent, stored)
        run = _start(keeper, module, sent, "api")
        response.headers["Location"] = f"/api/v1/runs/{run.document.id}"
        with suppress(TimeoutError):
            await _await_end(run, (asked.wait or 0) / 1e9)
        return run.document

    @router.get("/runs", responses=describe_problems(422, 503))
    async def list_runs(request: Request, asked: Annotated[RunSearch, Query()]) -> RunsPage:
        """List runs, the newest first."""
        before = None if asked.cursor is None else read_cursor(asked, asked.cursor, _PLACE)
        runs = await asker.ask(
            request, lambda connection: history.list_runs(connection, asked.limit, before, asked.outcome), fresh=False
        )
        last = write_cursor(asked, (runs[-1].started_ns, runs[-1].id)) if len(runs) == asked.limit else None
        return RunsPage(runs=runs, next=last)

    async def find_run(request: Request, run_id: str) -> RunDocument:
        running = keeper.find(run_id)
        if running is not None:
            return running.document
        found = await asker.ask(request, lambda connection: history.read_run(connection, run_id), fresh=False)
        if found is None:
            raise ProblemError(404, "no such run", f"there is no run {run_id}")
        return found

    @router.get("/runs/{run_id}", response_model=RunDocument, responses=_AS_KNOWN | describe_problems(404, 422, 503))
    async def read_run(request: Request, run_id: RunId) -> Response:
        """Fetch a run with its verdicts; one that has ended never changes."""
        run = await find_run(request, run_id)
        headers = {}
        if run.ended_ns is not None:
            headers = {"ETag": f'"{run.id}-{run.ended_ns}"', "Cache-Control": "private, max-age=31536000, immutable"}
            if headers["ETag"] in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
        return Response(_ANY.dump_json(run), headers=headers, media_type="application/json")

    async def find_any(request: Request, run_id: RunId) -> Run | RunDocument:
        return keeper.find(run_id) or await find_run(request, run_id)

    @router.get("/runs/{run_id}/events", response_class=EventSourceResponse, responses=describe_problems(404, 422, 503))
    async def stream_run(
        request: Request,
        run: Any = Depends(find_any),  # noqa: B008 (a local name has no place in an annotation)
    ) -> AsyncIterator[ServerSentEvent]:
        """Stream what happens in a run, from its beginning, or from behind `Last-Event-ID`; the last is `run`."""
        last = request.headers.get("last-event-id", "")
        begin = int(last) + 1 if last.isdecimal() else 0
        if isinstance(run, RunDocument):
            yield ServerSentEvent(event="run", data=_plain(run))
            return
        async for place, message in run.listen(begin):
            yield ServerSentEvent(event=message.name, id=str(place), data=_plain(message.data))

    @router.get(
        "/runs/{run_id}/junit", response_class=Response, responses=_AS_XML | describe_problems(404, 409, 422, 503)
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
        running = keeper.find(run_id)
        if running is not None:
            running.runner.cancel()
        return await find_run(request, run_id)

    @router.post("/gate", responses=describe_problems(400, 404, 413, 422, 503))
    async def ask_gate(request: Request, sent: SentGate) -> GateDocument:
        """Carry out proofs and say what a pipeline is to make of them. It ends when the client goes away."""
        module = await asyncio.to_thread(_read, sent, stored)
        run = _start(keeper, module, sent, "gate", share_error(module, sent.looks))
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
    async def list_proofs(request: Request, asked: Annotated[Past, Query()]) -> list[history.ProofHistory]:
        """Say of each proof how it fared: since when it fails, whether it is flaky, how long it takes."""
        return await asker.ask(
            request, lambda connection: history.list_proofs(connection, asked.since_ns()), fresh=False
        )

    @router.get("/failures", responses=describe_problems(422, 503))
    async def count_failures(request: Request, asked: Annotated[PastSteps, Query()]) -> list[history.Failures]:
        """Count what proofs did not pass for, by steps of time."""
        step_ns = max(1, asked.every or DAY_NS)
        return await asker.ask(
            request, lambda connection: history.count_failures(connection, asked.since_ns(), step_ns), fresh=False
        )

    return router


def _read(sent: SentProof, stored: StoredProofs) -> Module:
    if sent.stored:
        module = stored.read(sent.stored, sent.name or sent.stored)
    else:
        module = read_sent(sent.proof, sent.name or "sent.proof", may_send=stored.may_send)
    if module.diagnostics:
        raise ProblemError.of_text("proof", module.file.text, module.diagnostics)
    if not module.proofs:
        raise ProblemError(422, "the proof cannot be used", "there is no proof in the text")
    return module


def _start(keeper: RunKeeper, module: Module, sent: SentProof, origin: str, error_share: Decimal = Decimal(1)) -> Run:
    try:
        return keeper.start(module, sent.variables, origin, error_share)
    except StoreError as error:
        raise ProblemError(503, "not ready", str(error)) from None


async def _await_end(run: Run, timeout_s: float) -> None:
    """Wait for the end of a run. Raises TimeoutError."""

    async def listen() -> None:
        async for _ in run.listen():
            pass

    await asyncio.wait_for(listen(), timeout_s)


def _plain(data: object) -> Any:
    return json.loads(_ANY.dump_json(data))
