"""Sources of traces and answers to queries: a running server, or a file."""

from __future__ import annotations

from http import HTTPStatus

import duckdb

from spanproof.api.cli.server_connection import ServerAccess, make_server_error
from spanproof.api.http.query_output import AnswerDocument
from spanproof.api.http.schemas import TraceDocument
from spanproof.assertions.explain.trace_evidence import TraceView, build_trace_view
from spanproof.assertions.judge.query_answers import answer_query
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import UserError
from spanproof.query_lang.check.constants import MissingValue
from spanproof.query_lang.syntax import nodes as s


def fetch_trace(access: ServerAccess, trace_id: str) -> TraceView | None:
    """Fetch a trace, or None if the server has no span of it. Raises ServerError."""
    response = access.send_request("GET", f"/api/v1/traces/{trace_id}")
    if response.status_code == HTTPStatus.NOT_FOUND:
        return None
    if response.is_error:
        raise make_server_error(response)
    return TraceDocument.model_validate_json(response.content).to_view()


def read_trace(db: str, trace_id: str) -> TraceView | None:
    """Read a trace from a file, or return None if the file has no span of it. Raises UserError."""
    with Store.open(db) as store:
        derive_calls(store)
        connection = store.cursor()
        try:
            return build_trace_view(connection, trace_id, requests_only=False)
        finally:
            connection.close()


def fetch_answer(access: ServerAccess, query: str) -> AnswerDocument:
    """Return a server's answer to a query. Raises ServerError."""
    response = access.send_request("POST", "/api/v1/query", json={"query": query})
    if response.is_error:
        raise make_server_error(response)
    return AnswerDocument.model_validate_json(response.content)


def read_answer(db: str, query: s.MetricQuery) -> AnswerDocument:
    """Return the answer to a query over a file. Raises UserError."""
    with Store.open(db) as store:
        derive_calls(store)
        connection = store.cursor()
        try:
            return AnswerDocument.from_answer(answer_query(connection, query), query)
        except (MissingValue, duckdb.Error) as error:
            raise UserError(str(error)) from None
        finally:
            connection.close()
