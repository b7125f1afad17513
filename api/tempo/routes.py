"""The part of Tempo's API that Grafana's data source needs to search and to show traces.

An error is answered as Tempo answers it: as a line of text, which Grafana shows.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from google.protobuf.wrappers_pb2 import BytesValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from starlette.responses import Response

from spanproof import __version__
from spanproof.api.http.parameters import LATEST_NS, reject_repeated
from spanproof.api.http.problems import ProblemError, ResponseDocs, describe_validation_errors
from spanproof.api.http.query_executor import QueryExecutor
from spanproof.api.http.trace_search import TraceSearch
from spanproof.api.tempo.documents import (
    TempoBuild,
    TempoScope,
    TempoScopes,
    TempoSearch,
    TempoTags,
    TempoTagValues,
    TempoTypedValues,
)
from spanproof.api.tempo.parameters import (
    FieldName,
    TagName,
    TempoRangeParameters,
    TempoScopedTagParameters,
    TempoSearchParameters,
    TempoTagParameters,
    TempoTagValueParameters,
    TempoTraceId,
)
from spanproof.api.tempo.search import compile_tags, search_traces
from spanproof.api.tempo.tags import TagFilter, read_attribute_names, read_field_values
from spanproof.api.tempo.traceql import SpanFilter, compile_traceql
from spanproof.api.tempo.traceql_fields import TraceqlAttribute, TraceqlIntrinsic, read_field
from spanproof.collector.otlp.json_mapping import render_message
from spanproof.collector.storage.span_reader import read_requests
from spanproof.query_lang.sql.row_aliases import SqlParameters

if TYPE_CHECKING:
    import duckdb

_PROTOBUF = "application/protobuf"
_TEXT_RESPONSE: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_RESPONSES: ResponseDocs = {
    "4XX": {"description": "The request is rejected; the text gives the reason", **_TEXT_RESPONSE},
    "5XX": {"description": "The store does not answer; the text gives the reason", **_TEXT_RESPONSE},
}


class _TempoRoute(APIRoute):
    """A route that answers errors as Tempo does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return PlainTextResponse(describe_validation_errors(error), 400)
            except ProblemError as error:
                status = error.problem.status
                return PlainTextResponse(error.problem.detail, 400 if status == 422 else status, error.headers)

        return answer


def make_tempo_router(executor: QueryExecutor) -> APIRouter:
    """Return the router of Tempo's API."""
    router = APIRouter(
        prefix="/api", tags=["tempo"], route_class=_TempoRoute, dependencies=[Depends(reject_repeated)],
        responses=_RESPONSES,
    )  # fmt: skip

    @router.get("/echo", response_class=PlainTextResponse)
    async def echo() -> str:
        """Confirm to Grafana that the server responds."""
        return "echo"

    @router.get("/status/buildinfo")
    async def read_build() -> TempoBuild:
        """Return the version of the server."""
        return TempoBuild(version=__version__)

    traces: ResponseDocs = {200: {"description": "The trace as OTLP", "content": {_PROTOBUF: {}}}}

    @router.get("/traces/{trace_id}", responses=traces)
    async def read_trace_v1(
        request: Request, trace_id: TempoTraceId, parameters: Annotated[TempoRangeParameters, Query()]
    ) -> Any:
        """Read a trace: TracesData of OTLP, `batches` in JSON."""
        trace = await _read_trace(executor, request, trace_id, parameters)
        if _is_protobuf_accepted(request):
            return _make_protobuf_response(trace.SerializeToString())
        return _make_json_response({"batches": render_message(trace)["resourceSpans"]})

    @router.get("/v2/traces/{trace_id}", responses=traces)
    async def read_trace_v2(
        request: Request, trace_id: TempoTraceId, parameters: Annotated[TempoRangeParameters, Query()]
    ) -> Any:
        """Read a trace: TracesData of OTLP as field 1, `trace`, of the answer."""
        trace = await _read_trace(executor, request, trace_id, parameters)
        if _is_protobuf_accepted(request):
            # a message in field 1 has the same encoding as bytes in field 1
            return _make_protobuf_response(BytesValue(value=trace.SerializeToString()).SerializeToString())
        return _make_json_response({"trace": render_message(trace)})

    @router.get("/search")
    async def search(request: Request, parameters: Annotated[TempoSearchParameters, Query()]) -> TempoSearch:
        """Search for traces, newest first."""
        values = SqlParameters()
        query_filter = _compile_query(parameters.q, values)
        tags_filter = _compile_or_reject(lambda: compile_tags(parameters.tags or "", values), "tags: ")
        span_filter = SpanFilter(
            f"{query_filter.sql} AND {tags_filter.sql}", query_filter.attributes + tags_filter.attributes
        )
        since_ns, until_ns = parameters.bounds
        search = TraceSearch(
            (span_filter.sql,), values, parameters.limit, since_ns, until_ns,
            parameters.min_duration or 0, LATEST_NS if parameters.max_duration is None else parameters.max_duration,
        )  # fmt: skip
        return await executor.execute(
            request, lambda connection: search_traces(connection, search, span_filter, parameters.spss)
        )

    @router.get("/search/tags")
    async def list_tags(request: Request, parameters: Annotated[TempoScopedTagParameters, Query()]) -> TempoTags:
        """List the names of attributes."""
        scopes = await _read_scopes(executor, request, parameters, ("resource", "span"))
        return TempoTags(tag_names=sorted({tag for scope in scopes for tag in scope.tags})[: parameters.limit])

    @router.get("/v2/search/tags")
    async def list_tags_v2(request: Request, parameters: Annotated[TempoScopedTagParameters, Query()]) -> TempoScopes:
        """List the names of attributes and of intrinsic fields, by scope."""
        return TempoScopes(scopes=await _read_scopes(executor, request, parameters, ("resource", "span", "intrinsic")))

    @router.get("/search/tag/{tag:path}/values")
    async def list_values(
        request: Request, tag: TagName, parameters: Annotated[TempoTagValueParameters, Query()]
    ) -> TempoTagValues:
        """List the values of an attribute, of spans and resources."""
        name = unquote(tag)
        field = read_field(name) or read_field(f".{name}")
        values = await _read_values(executor, request, name, field, parameters)
        return TempoTagValues(tag_values=sorted({each.value for each in values.tag_values}))

    @router.get("/v2/search/tag/{tag:path}/values")
    async def list_values_v2(
        request: Request, tag: FieldName, parameters: Annotated[TempoTagValueParameters, Query()]
    ) -> TempoTypedValues:
        """List the values of a field with their types."""
        name = unquote(tag)  # Grafana encodes the name twice
        return await _read_values(executor, request, name, read_field(name), parameters)

    return router


async def _read_trace(
    executor: QueryExecutor, request: Request, trace_id: str, parameters: TempoRangeParameters
) -> TracesData:
    since_ns, until_ns = parameters.bounds
    key = UUID(trace_id.zfill(32))

    def read(connection: duckdb.DuckDBPyConnection) -> TracesData:
        connection.begin()
        data = TracesData()
        ((start_ns, end_ns),) = connection.execute(
            "SELECT min(start_ns), max(greatest(start_ns, end_ns)) FROM spans WHERE trace_id = ?", [key]
        ).fetchall()
        if start_ns is not None and start_ns < until_ns and end_ns >= since_ns:
            for part in read_requests(connection, [key]):
                data.MergeFrom(part)
        return data

    trace = await executor.execute(request, read)
    if not trace.resource_spans:
        raise ProblemError(404, "no such trace", f"trace not found: no span of {trace_id} is stored")
    return trace


async def _read_scopes(
    executor: QueryExecutor, request: Request, parameters: TempoScopedTagParameters, scopes: tuple[str, ...]
) -> list[TempoScope]:
    tag_filter = _make_tag_filter(parameters)
    if parameters.scope not in ("all", "none"):
        scopes = (parameters.scope,)
    return await executor.execute(
        request,
        lambda connection: [
            TempoScope(name=scope, tags=read_attribute_names(connection, scope, tag_filter)) for scope in scopes
        ],
    )


async def _read_values(
    executor: QueryExecutor,
    request: Request,
    name: str,
    field: TraceqlIntrinsic | TraceqlAttribute | None,
    parameters: TempoTagValueParameters,
) -> TempoTypedValues:
    if field is None:
        raise ProblemError(422, "invalid request", f"tag name is not valid intrinsic or scoped attribute: {name}")
    tag_filter = _make_tag_filter(parameters)
    return TempoTypedValues(
        tag_values=await executor.execute(request, lambda connection: read_field_values(connection, field, tag_filter))
    )


def _make_tag_filter(query_parameters: TempoTagParameters) -> TagFilter:
    parameters = SqlParameters()
    since_ns, until_ns = query_parameters.bounds
    window_condition = f"s.start_ns >= {parameters.add(since_ns)} AND s.start_ns < {parameters.add(until_ns)}"
    return TagFilter(
        f"{window_condition} AND {_compile_query(query_parameters.q, parameters).sql}",
        parameters,
        query_parameters.limit,
    )


def _compile_query(query: str | None, parameters: SqlParameters) -> SpanFilter:
    return _compile_or_reject(lambda: compile_traceql(query or "{}", parameters), "")


def _compile_or_reject(compile_filter: Callable[[], SpanFilter], name: str) -> SpanFilter:
    try:
        return compile_filter()
    except ValueError as error:
        raise ProblemError(422, "invalid request", f"{name}{error}") from None


def _is_protobuf_accepted(request: Request) -> bool:
    media_ranges = request.headers.get("accept", "").lower().split(",")
    return _PROTOBUF in (each.partition(";")[0].strip() for each in media_ranges)


def _make_protobuf_response(body: bytes) -> Response:
    return Response(body, media_type=_PROTOBUF, headers={"Vary": "Accept"})


def _make_json_response(document: dict[str, Any]) -> Response:
    return JSONResponse(document, headers={"Vary": "Accept"})
