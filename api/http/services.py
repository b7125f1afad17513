"""Services and the calls between them: ``/services`` and ``/calls``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query, Request
from msgspec import Struct
from pydantic import TypeAdapter

from spanproof.api.http.pagination import BoundedInt, read_cursor, write_cursor
from spanproof.api.http.parameters import Cursor, Limit, WindowParameters, omit_open_bound, reject_repeated
from spanproof.api.http.problems import describe_problems
from spanproof.api.http.query_executor import QueryExecutor
from spanproof.api.http.schemas import CallPage, CallSummary, Quantiles, ServiceList, ServiceSummary
from spanproof.api.http.trace_search import read_sql
from spanproof.query_lang.sql.duckdb_dialect import SQL

if TYPE_CHECKING:
    import duckdb

_POSITION_ADAPTER = TypeAdapter(tuple[BoundedInt, BoundedInt, str, str, str, str])


class _Edge(Struct, frozen=True):
    caller: str
    callee: str
    operation: str
    protocol: str


class ServiceGraphParameters(WindowParameters):
    """The requested part of the service graph."""

    limit: Limit = 100
    cursor: Cursor = None


def make_services_router(executor: QueryExecutor) -> APIRouter:
    """Return the router of services and calls."""
    router = APIRouter(prefix="/api/v1", tags=["services"], dependencies=[Depends(reject_repeated)])

    @router.get("/services", responses=describe_problems(422, 503))
    async def list_services(request: Request, window: Annotated[WindowParameters, Query()]) -> ServiceList:
        """List the services that sent spans, with their requests, errors and durations."""
        since_ns, until_ns = window.compute_bounds(time.time_ns())
        services = await executor.execute(request, lambda connection: _read_services(connection, since_ns, until_ns))
        return ServiceList(since_ns=omit_open_bound(since_ns), until_ns=omit_open_bound(until_ns), services=services)

    @router.get("/calls", responses=describe_problems(422, 503))
    async def list_calls(request: Request, parameters: Annotated[ServiceGraphParameters, Query()]) -> CallPage:
        """List the edges of the service graph: caller, callee, operation, errors and durations."""
        since_ns, until_ns = parameters.compute_bounds(time.time_ns())
        after: _Edge | None = None
        if parameters.cursor is not None:
            since_ns, until_ns, *edge = read_cursor(parameters, parameters.cursor, _POSITION_ADAPTER)
            after = _Edge(*edge)
        calls = await executor.execute(
            request, lambda connection: _read_calls(connection, since_ns, until_ns, after, parameters.limit + 1)
        )
        position = None
        if len(calls) > parameters.limit:
            last = calls[parameters.limit - 1]
            position = (since_ns, until_ns, last.caller, last.callee, last.operation, last.protocol)
        return CallPage(
            since_ns=omit_open_bound(since_ns), until_ns=omit_open_bound(until_ns), calls=calls[: parameters.limit],
            next=write_cursor(parameters, position) if position else None,
        )  # fmt: skip

    return router


def _read_services(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> list[ServiceSummary]:
    sql = read_sql("spanproof.api.http", "services.sql", version=SQL.attribute("r.attributes", "service.version"))
    rows = connection.execute(sql, {"since_ns": since_ns, "until_ns": until_ns}).fetchall()
    return [
        ServiceSummary(
            service=service, versions=versions, requests=requests, errors=errors,
            error_rate=errors / requests if requests else None,
            duration_ns=Quantiles(n=ended, p50=p50, p95=p95, p99=p99) if ended else None,
        )
        for service, requests, errors, versions, ended, p50, p95, p99 in rows
    ]  # fmt: skip


def _read_calls(
    connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int, after: _Edge | None, limit: int
) -> list[CallSummary]:
    edge = after or _Edge("", "", "", "")
    rows = connection.execute(
        read_sql("spanproof.api.http", "calls.sql"),
        {
            "since_ns": since_ns, "until_ns": until_ns, "limit": limit, "first": after is None,
            "after_caller": edge.caller, "after_callee": edge.callee, "after_operation": edge.operation,
            "after_protocol": edge.protocol,
        },
    ).fetchall()  # fmt: skip
    return [
        CallSummary(
            caller=caller, callee=callee, operation=operation, protocol=protocol, count=count, attempts=attempts,
            errors=errors, failed=failed, duration_ns=Quantiles(n=count, p50=p50, p95=p95, p99=p99),
        )
        for caller, callee, operation, protocol, count, attempts, errors, failed, p50, p95, p99 in rows
    ]  # fmt: skip
