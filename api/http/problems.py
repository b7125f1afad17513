"""Errors of the HTTP API as problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPMethod, HTTPStatus
from typing import Any, Self

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from spanproof.api.http.schemas import DiagnosticDocument, Problem
from spanproof.query_lang.syntax.diagnostics import Diagnostic

MEDIA_TYPE = "application/problem+json"
ResponseDocs = dict[int | str, dict[str, Any]]


class ProblemError(Exception):
    """An error that is answered as problem+json, with `headers`."""

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(title=title, status=status, detail=detail)
        self.headers = headers

    @classmethod
    def from_diagnostics(cls, what: str, text: str, diagnostics: Iterable[Diagnostic]) -> Self:
        """Return the error for a submitted text with diagnostics."""
        documents = [DiagnosticDocument.from_diagnostic(each, text) for each in diagnostics]
        first = documents[0]
        more = f"; and {len(documents) - 1} more" if len(documents) > 1 else ""
        error = cls(422, f"the {what} cannot be used", f"{first.line}:{first.column}: {first.message}{more}")
        error.problem.diagnostics = documents
        return error


def describe_problems(*statuses: int) -> ResponseDocs:
    """Return the OpenAPI description of an operation's problems."""
    schema = Problem.model_json_schema()
    schema["properties"]["diagnostics"]["items"] = schema.pop("$defs")[DiagnosticDocument.__name__]
    return {status: {"description": "A problem", "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


def make_problem_response(error: ProblemError) -> JSONResponse:
    """Return the response for an error."""
    content = error.problem.model_dump(exclude_defaults=True)
    return JSONResponse(content, error.problem.status, error.headers, media_type=MEDIA_TYPE)


def describe_validation_errors(error: RequestValidationError) -> str:
    """Return the validation errors of a request as a text, each with the name of its parameter."""
    return "; ".join(
        ": ".join([*map(str, each["loc"][1:]), each["msg"].removeprefix("Value error, ")]) for each in error.errors()
    )


def _find_allowed_methods(app: FastAPI, request: Request) -> list[str]:
    """Return the methods of all operations at the path of a request."""
    # An included router has no list of methods: each method is matched.
    return [
        method
        for method in sorted(HTTPMethod)
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]


def add_problem_handlers(app: FastAPI) -> None:
    """Make the app answer all errors, raised ones and its own, as problems."""

    @app.exception_handler(ProblemError)
    def answer_problem(_: Request, error: ProblemError) -> JSONResponse:
        return make_problem_response(error)

    @app.exception_handler(RequestValidationError)
    def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return make_problem_response(ProblemError(422, "invalid request", describe_validation_errors(error)))

    @app.exception_handler(HTTPException)
    def answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # Starlette lists the methods of a single route only
            headers["Allow"] = ", ".join(_find_allowed_methods(app, request))
        return make_problem_response(
            ProblemError(error.status_code, str(error.detail).lower(), str(error.detail), headers)
        )
