"""Questions about stored traces, over HTTP."""

from __future__ import annotations

import duckdb
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from spanproof.api.answers import FORMATS, AnswerDocument
from spanproof.api.asking import Asker
from spanproof.api.parameters import refuse_repeated
from spanproof.api.problems import ProblemError, describe_problems
from spanproof.assertions.answers import answer
from spanproof.query_lang.constants import NoValue
from spanproof.query_lang.questions import read_question

_OFFERED = {each.media_type: each for name, each in FORMATS.items() if name != "table"}


class QuestionDocument(BaseModel):
    """A question, such as ``p95(duration(gateway)) by resource.service.version over last 1h every 1m``."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"query": "p95(duration(gateway)) by resource.service.version over last 1h"}]},
    )

    query: str = Field(max_length=10_000, json_schema_extra={"format": "question"})


def make_questions_router(asker: Asker) -> APIRouter:
    """Make the route of questions."""
    router = APIRouter(prefix="/api/v1", tags=["questions"], dependencies=[Depends(refuse_repeated)])
    other = {kind: {"schema": {"type": "string"}} for kind in _OFFERED if kind != "application/json"}

    @router.post(
        "/query",
        response_model=AnswerDocument,
        responses={200: {"content": other}, **describe_problems(400, 406, 413, 422, 503)},
    )
    async def ask(request: Request, document: QuestionDocument) -> Response:
        """Answer a question; as JSON, CSV or an Arrow stream, as `Accept` says."""
        read = read_question(document.query)
        if read.question is None:
            raise ProblemError.of_text("query", document.query, read.diagnostics)
        question = read.question
        wanted = _choose(request.headers.get("accept", "*/*"))
        try:
            found = await asker.ask(request, lambda connection: answer(connection, question))
        except NoValue as error:
            raise ProblemError(422, "the query cannot be answered", str(error)) from None
        except (duckdb.OutOfMemoryException, duckdb.DataError) as error:
            raise ProblemError(422, "the query cannot be answered", str(error).splitlines()[0]) from None
        return Response(_OFFERED[wanted].render(AnswerDocument.of(found, question)), media_type=wanted)

    return router


def _choose(accept: str) -> str:
    """Return the first media type that is wanted and that we have."""
    for part in accept.split(","):
        wanted = part.partition(";")[0].strip().lower()
        for media_type in _OFFERED:
            if wanted in (media_type, "*/*", f"{media_type.partition('/')[0]}/*"):
                return media_type
    raise ProblemError(406, "no such format", f"answers are {', '.join(_OFFERED)}")
