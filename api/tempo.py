"""Tempo's API, as far as Grafana's data source needs it to search and to show traces.

What goes wrong is told as Tempo tells it, as a line of text, which Grafana shows.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from google.protobuf.wrappers_pb2 import BytesValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from spanproof import __version__
from spanproof.api.asking import Asker
from spanproof.api.parameters import EARLIEST_NS, LATEST_NS, Limit, Question, describe, read_whole, refuse_repeated
from spanproof.api.problems import ProblemError, Responses, tell_faults
from spanproof.api.searching import Search
from spanproof.api.tempo_documents import (
    TempoBuild,
    TempoScope,
    TempoScopes,
    TempoSearch,
    TempoTags,
    TempoTagValues,
    TempoTypedValues,
)
from spanproof.api.tempo_search import read_tags, search_traces
from spanproof.api.tempo_tags import Among, read_names, read_values
from spanproof.api.traceql import (
    INTRINSICS,
    Attribute,
    Intrinsic,
    SpanFilter,
    compile_traceql,
    read_field,
    read_go_duration_ns,
)
from spanproof.collector.encode import export_requests
from spanproof.collector.otlp_json import render_message
from spanproof.query_lang.conditions import Parameters

if TYPE_CHECKING:
    import duckdb

_SECOND_NS = 1_000_000_000
_PROTOBUF = "application/protobuf"
_TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_RESPONSES: Responses = {
    "4XX": {"description": "Refused; the text says why", **_TEXT},
    "5XX": {"description": "The store does not answer; the text says why", **_TEXT},
}


def _read_seconds(text: str) -> int:
    return min(read_whole(text) * _SECOND_NS, LATEST_NS)


SecondsNs = Annotated[int | None, BeforeValidator(_read_seconds), describe(1769860800, type="integer", minimum=0)]
GoDurationNs = Annotated[
    int | None,
    BeforeValidator(read_go_duration_ns),
    describe("100ms", type="string", pattern=r"^([0-9]{1,5}(\.[0-9]{1,3})?(us|µs|ms|s|m|h))+$"),
]
_TraceId = Annotated[str, Path(pattern="^[0-9a-fA-F]{1,32}$", description="Up to 32 hexadecimal digits")]
_Tag = Annotated[str, Path(description="The attribute's name", examples=["service.name"])]
_Field = Annotated[
    str,
    Path(
        description="The field, as TraceQL names it",
        examples=["resource.service.name"],
        json_schema_extra={"pattern": rf"^((span|resource)?\.[^\x00]+|{'|'.join(INTRINSICS)})$"},
    ),
]
_Query = Annotated[
    str | None,
    Field(description="TraceQL: one set of spans"),
    describe('{ resource.service.name = "payments" && status = error }', type="string", format="traceql"),
]


_ManyLimit = Annotated[
    int,
    BeforeValidator(read_whole),
    Field(ge=1, le=10_000, description="How many at most, of each scope"),
    describe(5000, type="integer", minimum=1, maximum=10_000),
]


class Range(Question):
    """From when until when, in seconds, both included."""

    start: Annotated[SecondsNs, Field(description="From then on, in seconds since the Unix epoch")] = None
    end: Annotated[SecondsNs, Field(description="Until then, in seconds since the Unix epoch")] = None

    @property
    def bounds(self) -> tuple[int, int]:
        """Return when it begins, and before when it ends, in nanoseconds."""
        return (
            EARLIEST_NS if self.start is None else self.start,
            LATEST_NS if self.end is None else min(self.end + _SECOND_NS, LATEST_NS),
        )


class SearchQuestion(Range):
    """Which traces are looked for; they start between `start` and `end`."""

    q: _Query = None
    tags: Annotated[
        str | None,
        Field(description="Attributes of a span or its resource, each with a part of its value, as logfmt writes them"),
        describe('service.name=payments name="POST /pay"', type="string", format="logfmt"),
    ] = None
    min_duration: Annotated[GoDurationNs, Field(alias="minDuration", description="Of the trace, at least")] = None
    max_duration: Annotated[GoDurationNs, Field(alias="maxDuration", description="Of the trace, at most")] = None
    limit: Limit = 20
    spss: Annotated[Limit, Field(description="How many spans of each trace at most")] = 3


class TagsQuestion(Range):
    """Whose names or values are asked for."""

    q: _Query = None
    limit: _ManyLimit = 1000


class ScopedTagsQuestion(TagsQuestion):
    """Names of which owners are asked for."""

    scope: Literal["all", "none", "span", "resource", "intrinsic"] = "all"


class ValuesQuestion(TagsQuestion):
    """Values of which attribute are asked for: that in the path, which Grafana's resource handler repeats."""

    tag: Annotated[
        str | None,
        Field(description="As in the path, which counts"),
        describe("resource.service.name", type="string"),
    ] = None


class _TempoRoute(APIRoute):
    """Tells what goes wrong as Tempo does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return PlainTextResponse(tell_faults(error), 400)
            except ProblemError as error:
                status = error.problem.status
                return PlainTextResponse(error.problem.detail, 400 if status == 422 else status, error.headers)

        return answer


def make_tempo_router(asker: Asker) -> APIRouter:
    """Make the routes of Tempo's API."""
    router = APIRouter(
        prefix="/api", tags=["tempo"], route_class=_TempoRoute, dependencies=[Depends(refuse_repeated)],
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

    traces: Responses = {200: {"description": "The trace as OTLP", "content": {_PROTOBUF: {}}}}

    @router.get("/traces/{trace_id}", responses=traces)
    async def read_trace_v1(request: Request, trace_id: _TraceId, question: Annotated[Range, Query()]) -> Any:
        """Read a trace: TracesData of OTLP, `batches` in JSON."""
        found = await _read_trace(asker, request, trace_id, question)
        if _wants_protobuf(request):
            return _answer_protobuf(found.SerializeToString())
        return _answer_json({"batches": render_message(found)["resourceSpans"]})

    @router.get("/v2/traces/{trace_id}", responses=traces)
    async def read_trace_v2(request: Request, trace_id: _TraceId, question: Annotated[Range, Query()]) -> Any:
        """Read a trace: TracesData of OTLP as field 1, `trace`, of the answer."""
        found = await _read_trace(asker, request, trace_id, question)
        if _wants_protobuf(request):
            # a message in field 1 is written as bytes in field 1 are
            return _answer_protobuf(BytesValue(value=found.SerializeToString()).SerializeToString())
        return _answer_json({"trace": render_message(found)})

    @router.get("/search")
    async def search(request: Request, question: Annotated[SearchQuestion, Query()]) -> TempoSearch:
        """Look for traces, newest first."""
        parameters = Parameters()
        matching = _compile(question.q, parameters)
        tagged = _read(lambda: read_tags(question.tags or "", parameters), "tags: ")
        matching = SpanFilter(f"{matching.sql} AND {tagged.sql}", matching.attributes + tagged.attributes)
        since_ns, until_ns = question.bounds
        wanted = Search(
            (matching.sql,), parameters, question.limit, since_ns, until_ns,
            question.min_duration or 0, LATEST_NS if question.max_duration is None else question.max_duration,
        )  # fmt: skip
        return await asker.ask(request, lambda connection: search_traces(connection, wanted, matching, question.spss))

    @router.get("/search/tags")
    async def list_tags(request: Request, question: Annotated[ScopedTagsQuestion, Query()]) -> TempoTags:
        """List the names of attributes."""
        scopes = await _read_scopes(asker, request, question, ("resource", "span"))
        return TempoTags(tag_names=sorted({tag for scope in scopes for tag in scope.tags})[: question.limit])

    @router.get("/v2/search/tags")
    async def list_tags_v2(request: Request, question: Annotated[ScopedTagsQuestion, Query()]) -> TempoScopes:
        """List the names of attributes, and of the fields that are none, by owner."""
        return TempoScopes(scopes=await _read_scopes(asker, request, question, ("resource", "span", "intrinsic")))

    @router.get("/search/tag/{tag:path}/values")
    async def list_values(request: Request, tag: _Tag, question: Annotated[ValuesQuestion, Query()]) -> TempoTagValues:
        """List the values of an attribute, whoever has it."""
        name = unquote(tag)
        field = read_field(name) or read_field(f".{name}")
        found = await _read_values(asker, request, name, field, question)
        return TempoTagValues(tag_values=sorted({each.value for each in found.tag_values}))

    @router.get("/v2/search/tag/{tag:path}/values")
    async def list_values_v2(
        request: Request, tag: _Field, question: Annotated[ValuesQuestion, Query()]
    ) -> TempoTypedValues:
        """List the values of a field with their types."""
        name = unquote(tag)  # Grafana encodes it twice
        return await _read_values(asker, request, name, read_field(name), question)

    return router


async def _read_trace(asker: Asker, request: Request, trace_id: str, question: Range) -> TracesData:
    since_ns, until_ns = question.bounds
    key = UUID(trace_id.zfill(32))

    def read(connection: duckdb.DuckDBPyConnection) -> TracesData:
        connection.begin()
        whole = TracesData()
        ((start_ns, end_ns),) = connection.execute(
            "SELECT min(start_ns), max(end_ns) FROM spans WHERE trace_id = ?", [key]
        ).fetchall()
        if start_ns is not None and start_ns < until_ns and end_ns >= since_ns:
            for part in export_requests(connection, [key]):
                whole.MergeFrom(part)
        return whole

    found = await asker.ask(request, read)
    if not found.resource_spans:
        raise ProblemError(404, "no such trace", f"trace not found: no span of {trace_id} is stored")
    return found


async def _read_scopes(
    asker: Asker, request: Request, question: ScopedTagsQuestion, scopes: tuple[str, ...]
) -> list[TempoScope]:
    among = _among(question)
    if question.scope not in ("all", "none"):
        scopes = (question.scope,)
    return await asker.ask(
        request,
        lambda connection: [TempoScope(name=scope, tags=read_names(connection, scope, among)) for scope in scopes],
    )


async def _read_values(
    asker: Asker, request: Request, name: str, field: Intrinsic | Attribute | None, question: ValuesQuestion
) -> TempoTypedValues:
    if field is None:
        raise ProblemError(422, "invalid request", f"tag name is not valid intrinsic or scoped attribute: {name}")
    among = _among(question)
    return TempoTypedValues(
        tag_values=await asker.ask(request, lambda connection: read_values(connection, field, among))
    )


def _among(question: TagsQuestion) -> Among:
    parameters = Parameters()
    since_ns, until_ns = question.bounds
    within = f"s.start_ns >= {parameters.add(since_ns)} AND s.start_ns < {parameters.add(until_ns)}"
    return Among(f"{within} AND {_compile(question.q, parameters).sql}", parameters, question.limit)


def _compile(query: str | None, parameters: Parameters) -> SpanFilter:
    return _read(lambda: compile_traceql(query or "{}", parameters), "")


def _read(read: Callable[[], SpanFilter], name: str) -> SpanFilter:
    try:
        return read()
    except ValueError as error:
        raise ProblemError(422, "invalid request", f"{name}{error}") from None


def _wants_protobuf(request: Request) -> bool:
    accepted = request.headers.get("accept", "").lower().split(",")
    return _PROTOBUF in (each.partition(";")[0].strip() for each in accepted)


def _answer_protobuf(body: bytes) -> Response:
    return Response(body, media_type=_PROTOBUF, headers={"Vary": "Accept"})


def _answer_json(document: dict[str, Any]) -> Response:
    return JSONResponse(document, headers={"Vary": "Accept"})
