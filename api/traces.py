"""Stored traces, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from spanproof.api.asking import Asker
from spanproof.api.problems import ProblemError, describe_problems
from spanproof.api.schemas import TraceDocument
from spanproof.assertions.evidence import view_trace

TraceId = Annotated[str, Path(pattern="^[0-9a-fA-F]{32}$", description="32 hexadecimal digits")]


def make_traces_router(asker: Asker) -> APIRouter:
    """Make the routes over traces."""
    router = APIRouter(tags=["traces"])

    @router.get("/traces/{trace_id}", responses=describe_problems(404, 422, 503))
    async def read_trace(request: Request, trace_id: TraceId) -> TraceDocument:
        """Lay out a trace."""
        view = await asker.ask(
            request, lambda connection: view_trace(connection, trace_id.lower(), requests_only=False)
        )
        if view is None:
            raise ProblemError(404, "no such trace", f"no span of trace {trace_id} is stored")
        return TraceDocument.of(view)

    return router
