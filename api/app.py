"""The HTTP API: an ASGI application over a store."""

from __future__ import annotations

from pathlib import Path

import duckdb
from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from spanproof import __version__
from spanproof.api.asking import Asker
from spanproof.api.metrics import add_metrics
from spanproof.api.problems import ProblemError, add_problem_handlers, answer_problem, describe_problems
from spanproof.api.questions import make_questions_router
from spanproof.api.run_keeper import RunKeeper
from spanproof.api.runs import make_runs_router
from spanproof.api.schemas import Health
from spanproof.api.services import make_services_router
from spanproof.api.stored_proofs import StoredProofs, make_stored_proofs_router
from spanproof.api.tempo import make_tempo_router
from spanproof.api.traces import make_traces_router
from spanproof.collector.auth import Admitted, Role, TokenGate, Tokens
from spanproof.collector.store import Store, StoreError

_OPEN = frozenset({"/healthz", "/readyz"})
_QUESTIONS = "/api/v1/query"
_MAX_BODY_BYTES = 2 * 2**20  # a proof of 1 MiB, and its variables


def make_app(store: Store, keeper: RunKeeper, tokens: Tokens | None = None, proofs: Path | None = None) -> ASGIApp:
    """Make the API over `store` and a folder of `proofs`; to who shows no token, it says only whether it is well."""
    app = FastAPI(title="spanproof", version=__version__, max_body_size=_MAX_BODY_BYTES)
    add_problem_handlers(app)

    @app.get("/healthz")
    def healthz() -> Health:
        """Tell that the process is alive."""
        return Health(status="ok")

    @app.get("/readyz", responses=describe_problems(503))
    def readyz() -> Health:
        """Tell that the store answers."""
        try:
            store.cursor().execute("SELECT 1")
        except (StoreError, duckdb.Error) as error:
            raise ProblemError(503, "not ready", str(error)) from None
        return Health(status="ready")

    add_metrics(app, store)
    asker = Asker(store)
    strangers = describe_problems(401, 403) if tokens else None
    for make_router in (make_traces_router, make_services_router, make_questions_router, make_tempo_router):
        app.include_router(make_router(asker), responses=strangers)
    stored = StoredProofs(proofs, may_send=bool(keeper.targets.allowed))
    app.include_router(make_stored_proofs_router(stored), responses=strangers)
    app.include_router(make_runs_router(asker, keeper, stored), responses=strangers)

    limited = _refuse_large(app)
    return TokenGate(limited, tokens, _find_role, _refuse) if tokens else limited


def _refuse_large(app: ASGIApp) -> ASGIApp:
    """Refuse what says that it is too large; what does not say so is cut off by the app."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if length.isdecimal() and int(length) > _MAX_BODY_BYTES:
            problem = ProblemError(413, "too large", f"the request is larger than {_MAX_BODY_BYTES} bytes")
            await answer_problem(problem)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def _find_role(request: Request) -> Role | None:
    """Say what a request needs: to look is to read, questions too; to have something done is to run."""
    path = request.scope["path"]
    if path in _OPEN:
        return None
    return Role.READ if request.method in ("GET", "HEAD", "OPTIONS") or path == _QUESTIONS else Role.RUN


def _refuse(request: Request, admitted: Admitted) -> Response:
    if admitted is Admitted.FORBIDDEN:
        detail = f"this token is not for that: its role is not `{_find_role(request)}`"
        return answer_problem(ProblemError(403, "forbidden", detail))
    detail = "show a token that this server knows: authorization: Bearer TOKEN"
    return answer_problem(ProblemError(401, "a token is needed", detail, {"WWW-Authenticate": "Bearer"}))
