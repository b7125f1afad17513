"""Common parts of all services: the application, its clients, and the server."""

import asyncio
import importlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from opentelemetry.sdk.trace import TracerProvider

from spanproof.examples.shop import faults, services, telemetry

CALL_TIMEOUT_S = 5.0
SHUTDOWN_TIMEOUT_S = 1


@cache
def connect(callee: str) -> httpx.AsyncClient:
    """Return the traced client of a service, whose address is read from the environment."""
    variable = services.name_url_variable(callee)
    if variable not in os.environ:
        raise RuntimeError(f"set {variable} to the address of `{callee}`")
    client = httpx.AsyncClient(base_url=os.environ[variable], timeout=CALL_TIMEOUT_S)
    telemetry.trace_client(client, callee)
    return client


def create_app(service: services.Service) -> FastAPI:
    """Return the traced application of one service."""
    provider = telemetry.start_tracing(service.name)
    for callee in service.calls:
        connect(callee)  # reports a missing address now instead of in the first request
    app = FastAPI(title=service.name, lifespan=partial(_flush_at_shutdown, provider=provider))
    app.include_router(importlib.import_module(f"spanproof.examples.shop.{service.module}").router)
    app.add_api_route("/healthz", lambda: {"status": "ok"}, include_in_schema=False)
    app.add_exception_handler(httpx.HTTPError, _answer_failed_call)
    app.add_exception_handler(faults.UnknownFaultError, _answer_unknown_fault)
    telemetry.trace_app(app)
    return app


@asynccontextmanager
async def _flush_at_shutdown(_: FastAPI, *, provider: TracerProvider) -> AsyncIterator[None]:
    yield
    # In a thread, because the exporter may wait for a slow or unreachable collector.
    await asyncio.to_thread(provider.shutdown)


async def _answer_failed_call(_: Request, error: Exception) -> JSONResponse:
    """Forward a client error (4xx) of the callee; answer 502 if the callee failed or was unreachable."""
    if not isinstance(error, httpx.HTTPStatusError):
        return JSONResponse({"detail": f"no answer: {type(error).__name__}"}, 502)
    if error.response.is_client_error:
        return JSONResponse(error.response.json(), error.response.status_code)
    return JSONResponse({"detail": f"{error.request.url.path} answered {error.response.status_code}"}, 502)


async def _answer_unknown_fault(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 400)


def serve(app: FastAPI, listener: socket.socket, tether: int | None) -> None:
    """Serve until SIGTERM, or until the writing end of `tether` is closed by the end of the shop's process."""
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S)
    asyncio.run(_serve(uvicorn.Server(config), listener, tether))


async def _serve(server: uvicorn.Server, listener: socket.socket, tether: int | None) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    if tether is not None:
        asyncio.get_running_loop().add_reader(tether, _stop, server, tether)
    await serving


def _stop(server: uvicorn.Server, tether: int) -> None:
    # The tether carries no data: it becomes readable when its writing end is closed.
    asyncio.get_running_loop().remove_reader(tether)
    server.should_exit = True
