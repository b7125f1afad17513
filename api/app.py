"""The HTTP API: an ASGI application over a store."""

from __future__ import annotations

from typing import Annotated

import duckdb
from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from spanproof import __version__
from spanproof.api.metrics import add_metrics
from spanproof.api.schemas import Health, Problem, TraceDocument
from spanproof.assertions.evidence import view_trace
from spanproof.collector.auth import TokenGate, Tokens
from spanproof.collector.calls import derive
from spanproof.collector.store import Store, StoreError


class ProblemError(Exception):
    """Answered as problem+json."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(title=title, status=status, detail=detail)


def make_app(store: Store, tokens: Tokens | None = None) -> ASGIApp:
    """Make the API over `store`; of who shows no token, it says only whether it is well."""
    app = FastAPI(title="spanproof", version=__version__)

    @app.exception_handler(ProblemError)
    def answer_problem(_: Request, error: ProblemError) -> JSONResponse:
        return JSONResponse(error.problem.model_dump(), error.problem.status, media_type="application/problem+json")

    @app.exception_handler(RequestValidationError)
    def answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(str(part) for part in each['loc'][1:])}: {each['msg']}" for each in error.errors()]
        return answer_problem(request, ProblemError(422, "invalid request", "; ".join(faults)))

    @app.get("/healthz")
    def healthz() -> Health:
        """Tell that the process is alive."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: {"model": Problem}})
    def readyz() -> Health:
        """Tell that the store answers."""
        try:
            store.cursor().execute("SELECT 1")
        except (StoreError, duckdb.Error) as error:
            raise ProblemError(503, "not ready", str(error)) from None
        return Health(status="ready")

    add_metrics(app, store)

    @app.get("/api/v1/traces/{trace_id}", responses={404: {"model": Problem}})
    def read_trace(trace_id: Annotated[str, Path(pattern="^[0-9a-fA-F]{32}$")]) -> TraceDocument:
        """Lay out a trace."""
        derive(store)
        connection = store.cursor()
        try:
            view = view_trace(connection, trace_id.lower(), requests_only=False)
        finally:
            connection.close()
        if view is None:
            raise ProblemError(404, "no such trace", f"no span of trace {trace_id} is stored")
        return TraceDocument.of(view)

    def refuse(request: Request) -> JSONResponse:
        detail = "show a token that this server knows: authorization: Bearer TOKEN"
        answer = answer_problem(request, ProblemError(401, "a token is needed", detail))
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    return TokenGate(app, tokens, refuse, frozenset({"/healthz", "/readyz"})) if tokens else app
