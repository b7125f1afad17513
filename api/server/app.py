"""The HTTP API: an ASGI application over a store."""

from __future__ import annotations

from pathlib import Path

import duckdb
from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from spanproof import __version__
from spanproof.api.http.gates import make_gate_router
from spanproof.api.http.problems import ProblemError, add_problem_handlers, describe_problems, make_problem_response
from spanproof.api.http.queries import make_query_router
from spanproof.api.http.query_executor import QueryExecutor
from spanproof.api.http.run_manager import RunManager
from spanproof.api.http.runs import make_runs_router
from spanproof.api.http.schemas import Health
from spanproof.api.http.services import make_services_router
from spanproof.api.http.stored_proofs import StoredProofs, make_stored_proofs_router
from spanproof.api.http.traces import make_traces_router
from spanproof.api.server.metrics import add_metrics
from spanproof.api.tempo.routes import make_tempo_router
from spanproof.collector.receive.authentication import AccessTokens, Admission, Role, TokenMiddleware
from spanproof.collector.storage.interface import SpanStore
from spanproof.collector.user_errors import StoreError

_UNAUTHENTICATED_PATHS = frozenset({"/healthz", "/readyz"})
_QUERY_PATH = "/api/v1/query"
_MAX_BODY_BYTES = 2 * 2**20  # a proof of 1 MiB and its variables


def make_app(
    store: SpanStore, run_manager: RunManager, tokens: AccessTokens | None = None, proofs: Path | None = None
) -> ASGIApp:
    """Return the API over `store` and a folder of `proofs`; with `tokens`, only health checks need no token."""
    app = FastAPI(title="spanproof", version=__version__, max_body_size=_MAX_BODY_BYTES)
    add_problem_handlers(app)

    @app.get("/healthz")
    def healthz() -> Health:
        """Report that the process is alive."""
        return Health(status="ok")

    @app.get("/readyz", responses=describe_problems(503))
    def readyz() -> Health:
        """Report that the store answers."""
        try:
            store.cursor().execute("SELECT 1")
        except (StoreError, duckdb.Error) as error:
            raise ProblemError(503, "not ready", str(error)) from None
        return Health(status="ready")

    add_metrics(app, store)
    executor = QueryExecutor(store)
    auth_problems = describe_problems(401, 403) if tokens else None
    for make_router in (make_traces_router, make_services_router, make_query_router, make_tempo_router):
        app.include_router(make_router(executor), responses=auth_problems)
    stored = StoredProofs(proofs, may_send=bool(run_manager.allowed_targets.allowed))
    app.include_router(make_stored_proofs_router(stored), responses=auth_problems)
    app.include_router(make_runs_router(executor, run_manager, stored), responses=auth_problems)
    app.include_router(make_gate_router(run_manager, stored), responses=auth_problems)

    limited = _limit_request_size(app)
    return TokenMiddleware(limited, tokens, _find_required_role, _make_auth_problem) if tokens else limited


def _limit_request_size(app: ASGIApp) -> ASGIApp:
    """Reject requests whose Content-Length is too large; the app itself cuts off those without one."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if length.isdecimal() and int(length) > _MAX_BODY_BYTES:
            problem = ProblemError(413, "too large", f"the request is larger than {_MAX_BODY_BYTES} bytes")
            await make_problem_response(problem)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def _find_required_role(request: Request) -> Role | None:
    """Return the role that a request needs: `read` for safe methods and queries, `run` for all others."""
    path = request.scope["path"]
    if path in _UNAUTHENTICATED_PATHS:
        return None
    return Role.READ if request.method in ("GET", "HEAD", "OPTIONS") or path == _QUERY_PATH else Role.RUN


def _make_auth_problem(request: Request, admitted: Admission) -> Response:
    if admitted is Admission.FORBIDDEN:
        detail = f"this token does not allow this request: its role is not `{_find_required_role(request)}`"
        return make_problem_response(ProblemError(403, "forbidden", detail))
    detail = "send a valid token: authorization: Bearer TOKEN"
    return make_problem_response(ProblemError(401, "a token is required", detail, {"WWW-Authenticate": "Bearer"}))
