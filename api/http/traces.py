"""Stored traces: ``/traces``."""

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
from spanproof.query_lang.sql.row_aliases import SqlParameters

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
        raise ValueError("a key must not contain the character of code 0")
    return key, value


_AttributePair = Annotated[
    tuple[str, str],
    BeforeValidator(_split_attribute),
    describe_schema("http.response.status_code:500", type="string", pattern=r"^[^:\x00]+:"),
]


class TraceSearchParameters(QueryParameters):
    """The requested traces. One span must match `service`, `name`, `error` and every `attribute`."""

    service: Annotated[
        str | None, Field(description="Service of a span"), describe_schema("payments", type="string")
    ] = None
    name: Annotated[
        str | None, Field(description="Name of that span: the operation"), describe_schema("POST /pay", type="string")
    ] = None
    error: Annotated[Flag, Field(description="Whether that span failed")] = None
    attribute: Annotated[
        tuple[_AttributePair, ...],
        Field(
            max_length=20,
            description="`key:value` of that span, or `resource.key:value` of its resource; may be repeated",
        ),
    ] = ()
    min_duration: Annotated[DurationNs, Field(description="Minimum duration of the trace")] = None
    max_duration: Annotated[DurationNs, Field(description="Maximum duration of the trace")] = None
    since: Annotated[InstantNs, Field(description="The trace starts at this time or later (ISO 8601)")] = None
    until: Annotated[InstantNs, Field(description="The trace starts before this time (ISO 8601)")] = None
    limit: Limit = 100
    cursor: Cursor = None

    def make_search(self) -> TraceSearch:
        """Return the search. Raises ProblemError for an invalid cursor."""
        values = SqlParameters()
        span_conditions = [compile_attribute_condition(values, key, text) for key, text in self.attribute]
        if self.service is not None:
            span_conditions.append(f"s.service = {values.add(self.service)}")
        if self.name is not None:
            span_conditions.append(f"s.name = {values.add(self.name)}")
        if self.error is not None:
            span_conditions.append(compile_error_condition(self.error))
        after = None
        if self.cursor is not None:
            last_key, start_ns, trace_id = read_cursor(self, self.cursor, _POSITION_ADAPTER)
            after = PagePosition(last_key, start_ns, parse_trace_id(trace_id))
        return TraceSearch(
            tuple(span_conditions), values, self.limit, after=after,
            since_ns=EARLIEST_NS if self.since is None else self.since,
            until_ns=LATEST_NS if self.until is None else self.until,
            min_ns=0 if self.min_duration is None else self.min_duration,
            max_ns=LATEST_NS if self.max_duration is None else self.max_duration,
        )  # fmt: skip


def make_traces_router(executor: QueryExecutor) -> APIRouter:
    """Return the router of traces."""
    router = APIRouter(prefix="/api/v1", tags=["traces"], dependencies=[Depends(reject_repeated)])

    @router.get("/traces", responses=describe_problems(422, 503))
    async def search_traces(request: Request, parameters: Annotated[TraceSearchParameters, Query()]) -> TracePage:
        """Search for traces, newest first. All pages show the state of the store at the first page."""
        search = parameters.make_search()
        traces, position = await executor.execute(request, lambda connection: find_traces(connection.begin(), search))
        return TracePage(
            traces=[_summarize(each) for each in traces],
            next=_write_position(parameters, position) if position else None,
        )

    @router.get(
        "/traces/{trace_id}",
        response_model=TraceDocument,
        responses=describe_problems(404, 422, 503)
        | {
            200: {
                "headers": {"ETag": {"description": "Identifies the state of the trace", "schema": {"type": "string"}}}
            },
            304: {"description": "The trace is unchanged since the state in `If-None-Match`"},
        },
    )
    async def read_trace(
        request: Request,
        response: Response,
        trace_id: TraceId,
        _: Annotated[QueryParameters, Query()],
        if_none_match: Annotated[
            str | None,
            Header(description="The `ETag` of an earlier response"),
            describe_schema('"9b2d0e7a4c1f38650d9e4b7c2a15f683"', type="string"),
        ] = None,
    ) -> TraceDocument | Response:
        """Fetch a trace with its spans in tree order."""

        def read(connection: duckdb.DuckDBPyConnection) -> tuple[str | None, TraceView | None]:
            connection.begin()  # the tag and the view must be of the same state
            tag = _read_etag(connection, trace_id)
            known = tag is not None and _is_etag_listed(if_none_match, tag)
            return tag, None if known else build_trace_view(connection, trace_id.lower(), requests_only=False)

        tag, view = await executor.execute(request, read)
        if tag is None:
            raise ProblemError(404, "no such trace", f"no span of trace {trace_id} is stored")
        response.headers["ETag"] = tag
        return Response(status_code=304, headers={"ETag": tag}) if view is None else TraceDocument.from_view(view)

    return router


def _write_position(parameters: TraceSearchParameters, position: PagePosition) -> str:
    return write_cursor(parameters, (position.last_key, position.start_ns, position.trace_id.hex))


def _summarize(found: FoundTrace) -> TraceSummary:
    return TraceSummary(
        trace_id=found.trace_id.hex, root_service=found.root["service"], root_name=found.root["name"],
        orphan=found.root["orphan"], start_ns=found.start_ns, duration_ns=found.duration_ns, spans=found.spans,
        services=found.services, errors=found.errors,
    )  # fmt: skip


def _read_etag(connection: duckdb.DuckDBPyConnection, trace_id: str) -> str | None:
    """Return the ETag of a trace's state, or None if no span is stored.

    It covers the keys and arrivals of the spans, whose contents never change, and their topology.
    """
    rows = connection.execute(
        "SELECT span_key, arrived_ns, parent_key, orphan, t.error FROM topology t"
        " JOIN spans s USING (trace_id, span_key) WHERE trace_id = ?::UUID ORDER BY span_key",
        [trace_id],
    ).fetchall()
    if not rows:
        return None
    return '"' + hashlib.sha256(repr((__version__, rows)).encode()).hexdigest()[:32] + '"'


def _is_etag_listed(if_none_match: str | None, etag: str) -> bool:
    """Return whether the header lists the tag. A weak form, as made by a proxy, is equal (RFC 9110, 13.1.2)."""
    known = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return etag in known or known == ["*"]
