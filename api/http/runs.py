"""Runs of proofs: ``/runs``, ``/proofs`` and ``/failures``."""

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
from spanproof.api.http.schemas import StrictModel
from spanproof.api.http.stored_proofs import StoredProofs
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports import history
from spanproof.assertions.reports.documents import RunDocument
from spanproof.assertions.reports.junit import render_junit
from spanproof.collector.user_errors import StoreError
from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.load.outside_variables import find_variable_problems
from spanproof.query_lang.load.submitted_proofs import read_submitted_proof

RunId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="16 hexadecimal digits")]
EXAMPLE_PROOF = """proof "release 1.4.2 is healthy" {
  given traces from gateway over last 15m where resource.service.version == "1.4.2"
  expect error_rate(gateway) < 1% with confidence 95%
}"""
DAY_NS = 24 * HOUR_NS
_PRINTABLE_PATTERN = r"^[^\x00-\x1f]+$"
_ANY_ADAPTER = TypeAdapter(Any)
_POSITION_ADAPTER = TypeAdapter(tuple[BoundedInt, str])
_NOT_MODIFIED: ResponseDocs = {304: {"description": "The run is unchanged"}}
_XML_RESPONSE: ResponseDocs = {200: {"content": {"application/xml": {"schema": {"type": "string"}}}}}


class SubmittedProof(StrictModel):
    """Proofs to run, as text or by the name of a stored proof file, and values for their ``let``s."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"proof": EXAMPLE_PROOF}],
            "oneOf": [{"required": ["proof"]}, {"required": ["stored"]}],
        },
    )

    # either may be left out, but neither may be null
    proof: str = Field(default_factory=str, max_length=2**20, min_length=1, json_schema_extra={"format": "proof"})
    stored: str = Field(
        default_factory=str,
        max_length=1000,
        pattern=_PRINTABLE_PATTERN,
        description="A file that `/proofs/stored` lists",
    )
    variables: dict[str, str] = Field(default={})
    name: str = Field(
        default_factory=str,
        max_length=200,
        pattern=_PRINTABLE_PATTERN,
        description="The name in reports; by default `sent.proof`, or the name of the stored file",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.proof) == bool(self.stored):
            raise ValueError("give either `proof`, a text, or `stored`, the name of a file")
        return self


class WaitParameters(QueryParameters):
    """The time to wait for the end of a run."""

    wait: DurationNs = None


class RunListParameters(QueryParameters):
    """The runs to list."""

    outcome: Annotated[Outcome | None, WithJsonSchema({"type": "string", "enum": list(Outcome)})] = None
    limit: Limit = 100
    cursor: Cursor = None


class PeriodParameters(QueryParameters):
    """The period; the last thirty days by default."""

    last: DurationNs = None

    def compute_since_ns(self) -> int:
        """Return the start of the period."""
        return time.time_ns() - (30 * DAY_NS if self.last is None else self.last)


class PeriodStepParameters(PeriodParameters):
    """The period and its time steps; days by default."""

    every: DurationNs = None


class RunsPage(BaseModel):
    """Runs, the newest first; `next` is the cursor for older ones, null at the end."""

    runs: list[history.RunSummary]
    next: str | None


def make_runs_router(executor: QueryExecutor, run_manager: RunManager, stored: StoredProofs) -> APIRouter:
    """Return the router of runs and proof histories."""
    router = APIRouter(prefix="/api/v1", tags=["runs"], dependencies=[Depends(reject_repeated)])

    @router.post(
        "/runs", status_code=201, response_model=RunDocument, responses=describe_problems(400, 404, 413, 422, 503)
    )
    async def start_run(
        response: Response, submitted: SubmittedProof, parameters: Annotated[WaitParameters, Query()]
    ) -> RunDocument:
        """Run proofs. The response comes at once, or after at most `wait`; `/runs/{id}/events` streams the rest."""
        module = await asyncio.to_thread(read_submitted, submitted, stored)
        run = start_submitted_run(run_manager, module, submitted, "api")
        response.headers["Location"] = f"/api/v1/runs/{run.document.id}"
        with suppress(TimeoutError):
            await await_end(run, (parameters.wait or 0) / 1e9)
        return run.document

    @router.get("/runs", responses=describe_problems(422, 503))
    async def list_runs(request: Request, parameters: Annotated[RunListParameters, Query()]) -> RunsPage:
        """List runs, the newest first."""
        before = None if parameters.cursor is None else read_cursor(parameters, parameters.cursor, _POSITION_ADAPTER)
        runs = await executor.execute(
            request,
            lambda connection: history.list_runs(connection, parameters.limit, before, parameters.outcome),
            derive_first=False,
        )
        is_full = len(runs) == parameters.limit
        cursor = write_cursor(parameters, (runs[-1].started_ns, runs[-1].id)) if is_full else None
        return RunsPage(runs=runs, next=cursor)

    async def find_run(request: Request, run_id: str) -> RunDocument:
        running = run_manager.find_run(run_id)
        if running is not None:
            return running.document
        stored_run = await executor.execute(
            request, lambda connection: history.read_run(connection, run_id), derive_first=False
        )
        if stored_run is None:
            raise ProblemError(404, "no such run", f"there is no run {run_id}")
        return stored_run

    @router.get(
        "/runs/{run_id}", response_model=RunDocument, responses=_NOT_MODIFIED | describe_problems(404, 422, 503)
    )
    async def read_run(request: Request, run_id: RunId) -> Response:
        """Fetch a run with its verdicts; a finished run never changes."""
        run = await find_run(request, run_id)
        headers = {}
        if run.ended_ns is not None:
            headers = {"ETag": f'"{run.id}-{run.ended_ns}"', "Cache-Control": "private, max-age=31536000, immutable"}
            if headers["ETag"] in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
        return Response(_ANY_ADAPTER.dump_json(run), headers=headers, media_type="application/json")

    async def find_active_or_stored_run(request: Request, run_id: RunId) -> ActiveRun | RunDocument:
        return run_manager.find_run(run_id) or await find_run(request, run_id)

    @router.get("/runs/{run_id}/events", response_class=EventSourceResponse, responses=describe_problems(404, 422, 503))
    async def stream_run(
        request: Request,
        run: Any = Depends(find_active_or_stored_run),  # noqa: B008 (an annotation cannot refer to a local name)
    ) -> AsyncIterator[ServerSentEvent]:
        """Stream the events of a run, from its start or from after `Last-Event-ID`; the last event is `run`."""
        last_event_id = request.headers.get("last-event-id", "")
        begin = int(last_event_id) + 1 if last_event_id.isdecimal() else 0
        if isinstance(run, RunDocument):
            yield ServerSentEvent(event="run", data=_to_json(run))
            return
        async for index, message in run.listen(begin):
            yield ServerSentEvent(event=message.name, id=str(index), data=_to_json(message.data))

    @router.get(
        "/runs/{run_id}/junit", response_class=Response, responses=_XML_RESPONSE | describe_problems(404, 409, 422, 503)
    )
    async def read_junit(request: Request, run_id: RunId) -> Response:
        """Fetch a finished run as JUnit XML."""
        run = await find_run(request, run_id)
        if run.ended_ns is None:
            raise ProblemError(409, "not ended", f"run {run_id} is still active")
        return Response(render_junit(run), media_type="application/xml")

    @router.post("/runs/{run_id}/cancel", status_code=202, responses=describe_problems(404, 422))
    async def cancel_run(request: Request, run_id: RunId) -> RunDocument:
        """Cancel an active run; a finished run stays unchanged."""
        running = run_manager.find_run(run_id)
        if running is not None:
            running.runner.cancel()
        return await find_run(request, run_id)

    @router.get("/proofs", responses=describe_problems(422, 503))
    async def list_proofs(
        request: Request, parameters: Annotated[PeriodParameters, Query()]
    ) -> list[history.ProofHistory]:
        """List the history of each proof: since when it fails, whether it is flaky, how long it takes."""
        return await executor.execute(
            request,
            lambda connection: history.list_proof_histories(connection, parameters.compute_since_ns()),
            derive_first=False,
        )

    @router.get("/failures", responses=describe_problems(422, 503))
    async def count_failures(
        request: Request, parameters: Annotated[PeriodStepParameters, Query()]
    ) -> list[history.FailureCount]:
        """Count the reasons why proofs did not pass, by time step."""
        step_ns = max(1, parameters.every or DAY_NS)
        return await executor.execute(
            request,
            lambda connection: history.count_failures(connection, parameters.compute_since_ns(), step_ns),
            derive_first=False,
        )

    return router


def read_submitted(submitted: SubmittedProof, stored: StoredProofs) -> ProofModule:
    """Read and check the submitted text, or the stored proof that it names. Raises ProblemError."""
    if submitted.stored:
        module = stored.read(submitted.stored, submitted.name or submitted.stored)
    else:
        module = read_submitted_proof(submitted.proof, submitted.name or "sent.proof", allow_requests=stored.may_send)
    if module.diagnostics:
        raise ProblemError.from_diagnostics("proof", module.file.text, module.diagnostics)
    if not module.proofs:
        raise ProblemError(422, "the proof cannot be used", "the text contains no proof")
    return module


def start_submitted_run(
    run_manager: RunManager,
    module: ProofModule,
    submitted: SubmittedProof,
    origin: str,
    error_share: Decimal = Decimal(1),
    *,
    window_grows: bool = False,
) -> ActiveRun:
    """Start a run of a submitted proof. Raises ProblemError."""
    problems = list(find_variable_problems([module], submitted.variables))
    if problems:
        raise ProblemError(422, "the variables do not fit the proof", "; ".join(problems))
    try:
        return run_manager.start_run(module, submitted.variables, origin, error_share, window_grows=window_grows)
    except StoreError as error:
        raise ProblemError(503, "not ready", str(error)) from None


async def await_end(run: ActiveRun, timeout_s: float) -> None:
    """Wait for the end of a run. Raises TimeoutError."""

    async def listen() -> None:
        async for _ in run.listen():
            pass

    await asyncio.wait_for(listen(), timeout_s)


def _to_json(data: object) -> Any:
    return json.loads(_ANY_ADAPTER.dump_json(data))
