"""Questions about stored traces, over HTTP."""

from __future__ import annotations

import duckdb
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from spanproof.api.http.parameters import reject_repeated
from spanproof.api.http.problems import ProblemError, describe_problems
from spanproof.api.http.query_executor import QueryExecutor
from spanproof.api.http.query_output import ANSWER_FORMATS, AnswerDocument
from spanproof.assertions.judge.query_answers import answer_query
from spanproof.query_lang.check.constants import MissingValue
from spanproof.query_lang.compile.queries import read_query

_FORMATS_BY_MEDIA_TYPE = {each.media_type: each for name, each in ANSWER_FORMATS.items() if name != "table"}


class QueryDocument(BaseModel):
    """A question, such as ``p95(duration(gateway)) by resource.service.version over last 1h every 1m``."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"query": "p95(duration(gateway)) by resource.service.version over last 1h"}]},
    )

    query: str = Field(max_length=10_000, json_schema_extra={"format": "question"})


def make_query_router(executor: QueryExecutor) -> APIRouter:
    """Make the route of questions."""
    router = APIRouter(prefix="/api/v1", tags=["questions"], dependencies=[Depends(reject_repeated)])
    other = {kind: {"schema": {"type": "string"}} for kind in _FORMATS_BY_MEDIA_TYPE if kind != "application/json"}

    @router.post(
        "/query",
        response_model=AnswerDocument,
        responses={200: {"content": other}, **describe_problems(400, 406, 413, 422, 503)},
    )
    async def ask(request: Request, document: QueryDocument) -> Response:
        """Answer a question; as JSON, CSV or an Arrow stream, as `Accept` says."""
        read = read_query(document.query)
        if read.query is None:
            raise ProblemError.from_diagnostics("query", document.query, read.diagnostics)
        question = read.query
        wanted = _choose_media_type(request.headers.get("accept", "*/*"))
        try:
            found = await executor.execute(request, lambda connection: answer_query(connection, question))
        except MissingValue as error:
            raise ProblemError(422, "the query cannot be answered", str(error)) from None
        except (duckdb.OutOfMemoryException, duckdb.DataError) as error:
            raise ProblemError(422, "the query cannot be answered", str(error).splitlines()[0]) from None
        return Response(
            _FORMATS_BY_MEDIA_TYPE[wanted].render(AnswerDocument.from_answer(found, question)), media_type=wanted
        )

    return router


def _choose_media_type(accept: str) -> str:
    """Return the first media type that is wanted and that we have."""
    for part in accept.split(","):
        wanted = part.partition(";")[0].strip().lower()
        for media_type in _FORMATS_BY_MEDIA_TYPE:
            if wanted in (media_type, "*/*", f"{media_type.partition('/')[0]}/*"):
                return media_type
    raise ProblemError(406, "no such format", f"answers are {', '.join(_FORMATS_BY_MEDIA_TYPE)}")
