"""Tempo's API, as far as Grafana's data source needs it to search and to show traces.

What goes wrong is told as Tempo tells it, as a line of text, which Grafana shows.
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
from spanproof.query_lang.compile.conditions import SqlParameters

if TYPE_CHECKING:
    import duckdb

_PROTOBUF = "application/protobuf"
_TEXT_RESPONSE: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_RESPONSES: ResponseDocs = {
    "4XX": {"description": "Refused; the text says why", **_TEXT_RESPONSE},
    "5XX": {"description": "The store does not answer; the text says why", **_TEXT_RESPONSE},
}


class _TempoRoute(APIRoute):
    """Tells what goes wrong as Tempo does."""

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
    """Make the routes of Tempo's API."""
    router = APIRouter(
        prefix="/api", tags=["tempo"], route_class=_TempoRoute, dependencies=[Depends(reject_repeated)],
        responses=_RESPONSES,
    )  # fmt: skip

    @router.get("/echo", response_class=PlainTextResponse)
    async def echo() -> str:
        """Tell Grafana that somebody is there."""
        return "echo"

    @router.get("/status/buildinfo")
    async def read_build() -> TempoBuild:
        """Tell which version this is."""
        return TempoBuild(version=__version__)

    traces: ResponseDocs = {200: {"description": "The trace as OTLP", "content": {_PROTOBUF: {}}}}

    @router.get("/traces/{trace_id}", responses=traces)
    async def read_trace_v1(
        request: Request, trace_id: TempoTraceId, question: Annotated[TempoRangeParameters, Query()]
    ) -> Any:
        """Read a trace: TracesData of OTLP, `batches` in JSON."""
        found = await _read_trace(executor, request, trace_id, question)
        if _is_protobuf_accepted(request):
            return _make_protobuf_response(found.SerializeToString())
        return _make_json_response({"batches": render_message(found)["resourceSpans"]})

    @router.get("/v2/traces/{trace_id}", responses=traces)
    async def read_trace_v2(
        request: Request, trace_id: TempoTraceId, question: Annotated[TempoRangeParameters, Query()]
    ) -> Any:
        """Read a trace: TracesData of OTLP as field 1, `trace`, of the answer."""
        found = await _read_trace(executor, request, trace_id, question)
        if _is_protobuf_accepted(request):
            # a message in field 1 is written as bytes in field 1 are
            return _make_protobuf_response(BytesValue(value=found.SerializeToString()).SerializeToString())
        return _make_json_response({"trace": render_message(found)})

    @router.get("/search")
    async def search(request: Request, question: Annotated[TempoSearchParameters, Query()]) -> TempoSearch:
        """Look for traces, newest first."""
        parameters = SqlParameters()
        matching = _compile_query(question.q, parameters)
        tagged = _compile_or_reject(lambda: compile_tags(question.tags or "", parameters), "tags: ")
        matching = SpanFilter(f"{matching.sql} AND {tagged.sql}", matching.attributes + tagged.attributes)
        since_ns, until_ns = question.bounds
        wanted = TraceSearch(
            (matching.sql,), parameters, question.limit, since_ns, until_ns,
            question.min_duration or 0, LATEST_NS if question.max_duration is None else question.max_duration,
        )  # fmt: skip
        return await executor.execute(
            request, lambda connection: search_traces(connection, wanted, matching, question.spss)
        )

    @router.get("/search/tags")
    async def list_tags(request: Request, question: Annotated[TempoScopedTagParameters, Query()]) -> TempoTags:
        """List the names of attributes."""
        scopes = await _read_scopes(executor, request, question, ("resource", "span"))
        return TempoTags(tag_names=sorted({tag for scope in scopes for tag in scope.tags})[: question.limit])

    @router.get("/v2/search/tags")
    async def list_tags_v2(request: Request, question: Annotated[TempoScopedTagParameters, Query()]) -> TempoScopes:
        """List the names of attributes, and of the fields that are none, by owner."""
        return TempoScopes(scopes=await _read_scopes(executor, request, question, ("resource", "span", "intrinsic")))

    @router.get("/search/tag/{tag:path}/values")
    async def list_values(
        request: Request, tag: TagName, question: Annotated[TempoTagValueParameters, Query()]
    ) -> TempoTagValues:
        """List the values of an attribute, whoever has it."""
        name = unquote(tag)
        field = read_field(name) or read_field(f".{name}")
        found = await _read_values(executor, request, name, field, question)
        return TempoTagValues(tag_values=sorted({each.value for each in found.tag_values}))

    @router.get("/v2/search/tag/{tag:path}/values")
    async def list_values_v2(
        request: Request, tag: FieldName, question: Annotated[TempoTagValueParameters, Query()]
    ) -> TempoTypedValues:
        """List the values of a field with their types."""
        name = unquote(tag)  # Grafana encodes it twice
        return await _read_values(executor, request, name, read_field(name), question)

    return router


async def _read_trace(
    executor: QueryExecutor, request: Request, trace_id: str, parameters: TempoRangeParameters
) -> TracesData:
    since_ns, until_ns = parameters.bounds
    key = UUID(trace_id.zfill(32))

    def read(connection: duckdb.DuckDBPyConnection) -> TracesData:
        connection.begin()
        whole = TracesData()
        ((start_ns, end_ns),) = connection.execute(
            "SELECT min(start_ns), max(end_ns) FROM spans WHERE trace_id = ?", [key]
        ).fetchall()
        if start_ns is not None and start_ns < until_ns and end_ns >= since_ns:
            for part in read_requests(connection, [key]):
                whole.MergeFrom(part)
        return whole

    found = await executor.execute(request, read)
    if not found.resource_spans:
        raise ProblemError(404, "no such trace", f"trace not found: no span of {trace_id} is stored")
    return found


async def _read_scopes(
    executor: QueryExecutor, request: Request, parameters: TempoScopedTagParameters, scopes: tuple[str, ...]
) -> list[TempoScope]:
    among = _make_tag_filter(parameters)
    if parameters.scope not in ("all", "none"):
        scopes = (parameters.scope,)
    return await executor.execute(
        request,
        lambda connection: [
            TempoScope(name=scope, tags=read_attribute_names(connection, scope, among)) for scope in scopes
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
    among = _make_tag_filter(parameters)
    return TempoTypedValues(
        tag_values=await executor.execute(request, lambda connection: read_field_values(connection, field, among))
    )


def _make_tag_filter(query_parameters: TempoTagParameters) -> TagFilter:
    parameters = SqlParameters()
    since_ns, until_ns = query_parameters.bounds
    within = f"s.start_ns >= {parameters.add(since_ns)} AND s.start_ns < {parameters.add(until_ns)}"
    return TagFilter(
        f"{within} AND {_compile_query(query_parameters.q, parameters).sql}", parameters, query_parameters.limit
    )


def _compile_query(query: str | None, parameters: SqlParameters) -> SpanFilter:
    return _compile_or_reject(lambda: compile_traceql(query or "{}", parameters), "")


def _compile_or_reject(compile_filter: Callable[[], SpanFilter], name: str) -> SpanFilter:
    try:
        return compile_filter()
    except ValueError as error:
        raise ProblemError(422, "invalid request", f"{name}{error}") from None


def _is_protobuf_accepted(request: Request) -> bool:
    accepted = request.headers.get("accept", "").lower().split(",")
    return _PROTOBUF in (each.partition(";")[0].strip() for each in accepted)


def _make_protobuf_response(body: bytes) -> Response:
    return Response(body, media_type=_PROTOBUF, headers={"Vary": "Accept"})


def _make_json_response(document: dict[str, Any]) -> Response:
    return JSONResponse(document, headers={"Vary": "Accept"})
