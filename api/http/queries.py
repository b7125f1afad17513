"""Queries over stored traces: ``/query``."""

from __future__ import annotations

import duckdb
from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field

from spanproof.api.http.parameters import reject_repeated
from spanproof.api.http.problems import ProblemError, describe_problems
from spanproof.api.http.query_executor import QueryExecutor
from spanproof.api.http.query_output import ANSWER_FORMATS, AnswerDocument
from spanproof.api.http.schemas import StrictModel
from spanproof.assertions.judge.query_answers import answer_query
from spanproof.query_lang.check.constants import MissingValue
from spanproof.query_lang.compile.queries import read_query

_FORMATS_BY_MEDIA_TYPE = {each.media_type: each for name, each in ANSWER_FORMATS.items() if name != "table"}


class QueryDocument(StrictModel):
    """A query, such as ``p95(duration(gateway)) by resource.service.version over last 1h every 1m``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "p95(duration(gateway)) by resource.service.version over last 1h"}]},
    )

    query: str = Field(max_length=10_000, json_schema_extra={"format": "question"})


def make_query_router(executor: QueryExecutor) -> APIRouter:
    """Return the router of ``/query``."""
    router = APIRouter(prefix="/api/v1", tags=["questions"], dependencies=[Depends(reject_repeated)])
    text_formats = {
        kind: {"schema": {"type": "string"}} for kind in _FORMATS_BY_MEDIA_TYPE if kind != "application/json"
    }

    @router.post(
        "/query",
        response_model=AnswerDocument,
        responses={200: {"content": text_formats}, **describe_problems(400, 406, 413, 422, 503)},
    )
    async def ask(request: Request, document: QueryDocument) -> Response:
        """Answer a query, as JSON, CSV or an Arrow stream according to `Accept`."""
        parsed = read_query(document.query)
        if parsed.query is None:
            raise ProblemError.from_diagnostics("query", document.query, parsed.diagnostics)
        query = parsed.query
        media_type = _choose_media_type(request.headers.get("accept", "*/*"))
        try:
            answer = await executor.execute(request, lambda connection: answer_query(connection, query))
        except MissingValue as error:
            raise ProblemError(422, "the query cannot be answered", str(error)) from None
        except (duckdb.OutOfMemoryException, duckdb.DataError) as error:
            raise ProblemError(422, "the query cannot be answered", str(error).splitlines()[0]) from None
        return Response(
            _FORMATS_BY_MEDIA_TYPE[media_type].render(AnswerDocument.from_answer(answer, query)),
            media_type=media_type,
        )

    return router


def _choose_media_type(accept: str) -> str:
    """Return the first accepted media type that is supported. Raises ProblemError if there is none."""
    for part in accept.split(","):
        accepted = part.partition(";")[0].strip().lower()
        for media_type in _FORMATS_BY_MEDIA_TYPE:
            if accepted in (media_type, "*/*", f"{media_type.partition('/')[0]}/*"):
                return media_type
    raise ProblemError(406, "no such format", f"the formats are {', '.join(_FORMATS_BY_MEDIA_TYPE)}")
