"""Stored traces, over HTTP."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BeforeValidator, Field, TypeAdapter

from spanproof import __version__
from spanproof.api.http.pagination import BoundedInt, read_cursor, write_cursor
from spanproof.api.http.parameters import (
    EARLIEST_NS,
    LATEST_NS,
    Cursor,
    DurationNs,
    Flag,
    InstantNs,
    Limit,
    QueryParameters,
    describe_schema,
    reject_repeated,
)
from spanproof.api.http.problems import ProblemError, describe_problems
from spanproof.api.http.query_executor import QueryExecutor
from spanproof.api.http.schemas import TraceDocument, TracePage, TraceSummary
from spanproof.api.http.trace_search import (
    FoundTrace,
    PagePosition,
    TraceSearch,
    compile_attribute_condition,
    compile_error_condition,
    find_traces,
)
from spanproof.assertions.explain.trace_evidence import TraceView, build_trace_view
from spanproof.collector.otlp.encoder import parse_trace_id
from spanproof.query_lang.compile.conditions import SqlParameters

if TYPE_CHECKING:
    import duckdb

TraceId = Annotated[
    str,
    Path(
        pattern="^[0-9a-fA-F]{32}$",
        description="32 hexadecimal digits",
        examples=["4bf92f3577b34da6a3ce929d0e0e4736"],
    ),
]
_POSITION_ADAPTER = TypeAdapter(tuple[BoundedInt, BoundedInt, Annotated[str, Field(pattern="^[0-9a-f]{32}$")]])


def _split_attribute(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not (key and colon):
        raise ValueError(f"`{text}` is not key:value")
    if "\0" in key:
        raise ValueError("a key has no character of code 0")
    return key, value


_AttributePair = Annotated[
    tuple[str, str],
    BeforeValidator(_split_attribute),
    describe_schema("http.response.status_code:500", type="string", pattern=r"^[^:\x00]+:"),
]


class TraceSearchParameters(QueryParameters):
    """Which traces are asked for. One span has to match `service`, `name`, `error` and every `attribute`."""

    service: Annotated[str | None, Field(description="Of a span"), describe_schema("payments", type="string")] = None
    name: Annotated[
        str | None, Field(description="Of a span: the operation"), describe_schema("POST /pay", type="string")
    ] = None
    error: Annotated[Flag, Field(description="Whether that span has failed")] = None
    attribute: Annotated[
        tuple[_AttributePair, ...],
        Field(
            max_length=20,
            description="`key:value`, of that span or (`resource.key:value`) of its resource; may be repeated",
        ),
    ] = ()
    min_duration: Annotated[DurationNs, Field(description="Of the trace, at least")] = None
    max_duration: Annotated[DurationNs, Field(description="Of the trace, at most")] = None
    since: Annotated[InstantNs, Field(description="The trace starts then or later (ISO 8601)")] = None
    until: Annotated[InstantNs, Field(description="The trace starts before then (ISO 8601)")] = None
    limit: Limit = 100
    cursor: Cursor = None

    def make_search(self) -> TraceSearch:
        """Make what is looked for. Raises ProblemError for a cursor that is none."""
        values = SqlParameters()
        of_span = [compile_attribute_condition(values, key, text) for key, text in self.attribute]
        if self.service is not None:
            of_span.append(f"s.service = {values.add(self.service)}")
        if self.name is not None:
            of_span.append(f"s.name = {values.add(self.name)}")
        if self.error is not None:
            of_span.append(compile_error_condition(self.error))
        after = None
        if self.cursor is not None:
            last_key, start_ns, trace_id = read_cursor(self, self.cursor, _POSITION_ADAPTER)
            after = PagePosition(last_key, start_ns, parse_trace_id(trace_id))
        return TraceSearch(
            tuple(of_span), values, self.limit, after=after,
            since_ns=EARLIEST_NS if self.since is None else self.since,
            until_ns=LATEST_NS if self.until is None else self.until,
            min_ns=0 if self.min_duration is None else self.min_duration,
            max_ns=LATEST_NS if self.max_duration is None else self.max_duration,
        )  # fmt: skip


def make_traces_router(executor: QueryExecutor) -> APIRouter:
    """Make the routes over traces."""
    router = APIRouter(prefix="/api/v1", tags=["traces"], dependencies=[Depends(reject_repeated)])

    @router.get("/traces", responses=describe_problems(422, 503))
    async def search_traces(request: Request, question: Annotated[TraceSearchParameters, Query()]) -> TracePage:
        """Look for traces, newest first; pages show what was there when the first one was asked for."""
        search = question.make_search()
        found, place = await executor.execute(request, lambda connection: find_traces(connection.begin(), search))
        return TracePage(
            traces=[_summarize(each) for each in found],
            next=write_cursor(question, (place.last_key, place.start_ns, place.trace_id.hex)) if place else None,
        )

    @router.get(
        "/traces/{trace_id}",
        response_model=TraceDocument,
        responses=describe_problems(404, 422, 503)
        | {
            200: {"headers": {"ETag": {"description": "Names this state of the trace", "schema": {"type": "string"}}}},
            304: {"description": "The trace is still as `If-None-Match` knows it"},
        },
    )
    async def read_trace(
        request: Request,
        response: Response,
        trace_id: TraceId,
        _: Annotated[QueryParameters, Query()],
        if_none_match: Annotated[
            str | None,
            Header(description="An `ETag` that is known already"),
            describe_schema('"9b2d0e7a4c1f38650d9e4b7c2a15f683"', type="string"),
        ] = None,
    ) -> TraceDocument | Response:
        """Lay out a trace."""

        def read(connection: duckdb.DuckDBPyConnection) -> tuple[str | None, TraceView | None]:
            connection.begin()  # the tag and the view are of one state
            tag = _read_etag(connection, trace_id)
            known = tag is not None and _is_etag_listed(if_none_match, tag)
            return tag, None if known else build_trace_view(connection, trace_id.lower(), requests_only=False)

        tag, view = await executor.execute(request, read)
        if tag is None:
            raise ProblemError(404, "no such trace", f"no span of trace {trace_id} is stored")
        response.headers["ETag"] = tag
        return Response(status_code=304, headers={"ETag": tag}) if view is None else TraceDocument.from_view(view)

    return router


def _summarize(found: FoundTrace) -> TraceSummary:
    return TraceSummary(
        trace_id=found.trace_id.hex, root_service=found.root["service"], root_name=found.root["name"],
        orphan=found.root["orphan"], start_ns=found.start_ns, duration_ns=found.duration_ns, spans=found.spans,
        services=found.services, errors=found.errors,
    )  # fmt: skip


def _read_etag(connection: duckdb.DuckDBPyConnection, trace_id: str) -> str | None:
    """Name the state of a trace: its spans, which never change, by key and arrival, and where they stand."""
    rows = connection.execute(
        "SELECT span_key, arrived_ns, parent_key, orphan, t.error FROM topology t"
        " JOIN spans s USING (trace_id, span_key) WHERE trace_id = ?::UUID ORDER BY span_key",
        [trace_id],
    ).fetchall()
    if not rows:
        return None
    return '"' + hashlib.sha256(repr((__version__, rows)).encode()).hexdigest()[:32] + '"'


def _is_etag_listed(if_none_match: str | None, etag: str) -> bool:
    """Tell whether the header names the tag; that a proxy has weakened it does not matter (RFC 9110, 13.1.2)."""
    known = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return etag in known or known == ["*"]
