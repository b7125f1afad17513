"""Where answers come from: a running server, or a file."""

from __future__ import annotations

from http import HTTPStatus

import duckdb

from spanproof.api.access import Access, refuse
from spanproof.api.answers import AnswerDocument
from spanproof.api.schemas import TraceDocument
from spanproof.assertions.answers import answer
from spanproof.assertions.evidence import TraceView, view_trace
from spanproof.collector.calls import derive
from spanproof.collector.failures import Unusable
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import NoValue


def fetch_trace(access: Access, trace_id: str) -> TraceView | None:
    """Fetch a trace, or None if the server has no span of it. Raises ServerError."""
    response = access.ask("GET", f"/api/v1/traces/{trace_id}")
    if response.status_code == HTTPStatus.NOT_FOUND:
        return None
    if response.is_error:
        raise refuse(response)
    return TraceDocument.model_validate_json(response.content).view()


def read_trace(db: str, trace_id: str) -> TraceView | None:
    """Read a trace from a file, or return None if the file has no span of it. Raises Unusable."""
    with Store.open(db) as store:
        derive(store)
        connection = store.cursor()
        try:
            return view_trace(connection, trace_id, requests_only=False)
        finally:
            connection.close()


def fetch_answer(access: Access, question: str) -> AnswerDocument:
    """Ask a server. Raises ServerError."""
    response = access.ask("POST", "/api/v1/query", json={"query": question})
    if response.is_error:
        raise refuse(response)
    return AnswerDocument.model_validate_json(response.content)


def read_answer(db: str, question: s.Question) -> AnswerDocument:
    """Ask a file. Raises Unusable."""
    with Store.open(db) as store:
        derive(store)
        connection = store.cursor()
        try:
            return AnswerDocument.of(answer(connection, question), question)
        except (NoValue, duckdb.Error) as error:
            raise Unusable(str(error)) from None
        finally:
            connection.close()
