"""Correlation of traces with requests: own traces, and traces that services started instead of continuing these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from spanproof.assertions.run.proof_requests import SentRequests
from spanproof.assertions.triggers.context import RUN_ID_ATTRIBUTE
from spanproof.assertions.triggers.responses import TriggerResponse
from spanproof.collector.traces.completeness import (
    Completeness,
    MissingSpans,
    check_completeness,
    find_related_traces,
    has_links,
)
from spanproof.query_lang.sql.duckdb_dialect import SQL

if TYPE_CHECKING:
    import duckdb

REQUEST_ID_SQL: Final = SQL.attribute("attributes", RUN_ID_ATTRIBUTE)
# The newest span key, and the traces and request ids of the spans after `$after`.
REQUEST_ID_TRACES_SQL: Final = f"""
SELECT coalesce(max(span_key), $after), list(DISTINCT {{'trace_id': trace_id, 'request': {REQUEST_ID_SQL}}})
    FILTER (list_contains(attributes.keys, $name))
FROM spans WHERE span_key > $after
"""  # noqa: S608 (a fixed name)
LINKED_TRACES_SQL: Final = """
SELECT DISTINCT trace_id, linked_trace_id, linked_span_id FROM entry_links
WHERE linked_trace_id IN (SELECT unnest($traces)::UUID) AND trace_id NOT IN (SELECT unnest($traces)::UUID)
"""
# Response headers that may contain a trace id, with their patterns.
TRACE_ID_HEADERS: Final = {
    "traceresponse": re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-"),
    "traceparent": re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-"),
    "server-timing": re.compile(r"\btraceparent\s*;\s*desc\s*=\s*\"?[0-9a-f]{2}-([0-9a-f]{32})-"),
    "x-trace-id": re.compile(r"([0-9a-f]{32})$"),
}


class CorrelatedTrace(Struct, frozen=True):
    """A trace that a service started: the own trace of its request, and how the trace was found.

    ``is_replacement`` says whether it replaces the request's own trace: yes, perhaps (None), or no.
    """

    request_trace_id: str
    correlated_by: str
    is_replacement: bool | None


class TraceCorrelation:
    """Finder of the traces that belong to sent requests, as their spans arrive."""

    def __init__(self, sent_requests: SentRequests) -> None:
        self._contexts = {context.trace_id: context for context in sent_requests.contexts}
        self._trace_id_by_request_id = {
            context.request_id: context.trace_id for context in sent_requests.contexts if context.run_id
        }
        self._last_scanned_key = sent_requests.last_span_key
        self._correlated: dict[str, CorrelatedTrace] = {}
        self._named_by_response: dict[str, CorrelatedTrace] = {}  # named in responses; they may never arrive
        for context, answer in zip(sent_requests.contexts, sent_requests.responses, strict=False):
            for header, trace_id in _read_trace_ids(answer):
                if trace_id not in self._contexts:
                    how = f"the response header `{header}`"
                    self._named_by_response.setdefault(trace_id, CorrelatedTrace(context.trace_id, how, True))

    def find_traces(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
        """Return all derived traces that belong to the requests."""
        traces = find_related_traces(connection, *self._contexts, *self._correlated)
        while new := dict(self._find_new_traces(connection, traces)):
            self._correlated |= new
            traces = find_related_traces(connection, *self._contexts, *self._correlated)
        return traces

    @property
    def has_replacements(self) -> bool:
        """Return whether other traces may replace our own."""
        return bool(self._correlated or self._named_by_response)

    def examine_completeness(self, connection: duckdb.DuckDBPyConnection, traces: tuple[str, ...]) -> Completeness:
        """Return the completeness of the traces that `find_traces` has found."""
        state = check_completeness(connection, traces)
        if not self.has_replacements:
            return state
        empty = {
            each.hex for (each,) in connection.execute("FROM judged EXCEPT SELECT trace_id FROM topology").fetchall()
        }
        return self._exclude_replaced(connection, state, empty)

    def _exclude_replaced(
        self, connection: duckdb.DuckDBPyConnection, state: Completeness, empty: set[str]
    ) -> Completeness:
        """Check completeness without those of our traces that another trace replaces."""
        certain: dict[str, bool] = {}
        for trace_id, each in self._correlated.items():
            if each.request_trace_id in empty and each.is_replacement is not False and trace_id not in empty:
                certain[each.request_trace_id] = (
                    certain.get(each.request_trace_id, False) or each.is_replacement is True
                )
        awaited = {
            trace_id: each.request_trace_id
            for trace_id, each in self._named_by_response.items()
            if trace_id not in self._correlated
            and each.request_trace_id in empty
            and each.request_trace_id not in certain
        }
        excluded = {*certain, *awaited.values()}
        if not excluded:
            return state
        traces = find_related_traces(connection, *(self._contexts.keys() - excluded), *self._correlated, *awaited)
        state = check_completeness(connection, traces)
        uncertain = sum(not is_certain for is_certain in certain.values())
        if uncertain:
            state = replace(state, missing=(*state.missing, MissingSpans("own", False, None, None, uncertain)))
        return state

    def _find_new_traces(
        self, connection: duckdb.DuckDBPyConnection, known: tuple[str, ...]
    ) -> Iterator[tuple[str, CorrelatedTrace]]:
        """Yield the traces that belong to the known ones and are not among them."""
        links = connection.execute(LINKED_TRACES_SQL, {"traces": known}).fetchall() if has_links(connection) else []
        for trace_id, linked, span_id in links:
            context = self._contexts.get(linked.hex)
            is_own_span = context is not None and context.span_id == f"{span_id:016x}"
            yield trace_id.hex, CorrelatedTrace(linked.hex, "its link", is_replacement=is_own_span)
        for trace_id, request in self._scan_request_ids(connection):
            request_trace_id = self._trace_id_by_request_id.get(request)
            if request_trace_id is not None and trace_id not in known:
                yield (
                    trace_id,
                    CorrelatedTrace(request_trace_id, f"the attribute `{RUN_ID_ATTRIBUTE}`", is_replacement=None),
                )
        if named_by_response := self._named_by_response.keys() - self._correlated.keys() - set(known):
            arrived = connection.execute(
                "SELECT DISTINCT trace_id FROM topology WHERE trace_id IN (SELECT unnest($traces)::UUID)",
                {"traces": sorted(named_by_response)},
            ).fetchall()
            yield from ((each.hex, self._named_by_response[each.hex]) for (each,) in arrived)

    def _scan_request_ids(self, connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
        """Return the traces and request ids of the unscanned spans that carry a request id."""
        if not self._trace_id_by_request_id:
            return []
        ((self._last_scanned_key, rows),) = connection.execute(
            REQUEST_ID_TRACES_SQL, {"after": self._last_scanned_key, "name": RUN_ID_ATTRIBUTE}
        ).fetchall()
        return [(each["trace_id"].hex, each["request"]) for each in rows or ()]

    def choose_displayed_trace(self, state: Completeness) -> str:
        """Return the trace to show for the first request: its own, or the one that replaces it."""
        own = next(iter(self._contexts))
        if own in state.trace_ids:
            return own
        return next((trace_id for trace_id, each in self._correlated.items() if each.request_trace_id == own), own)

    def describe_correlated(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
        """Return a note for each way in which traces were found."""
        by_how: dict[str, list[str]] = {}
        for trace_id, each in self._correlated.items():
            by_how.setdefault(each.correlated_by, []).append(trace_id)
        notes = []
        for how, traces in sorted(by_how.items()):
            services = [
                f"`{service}`"
                for (service,) in connection.execute(
                    "SELECT DISTINCT service FROM topology"
                    " WHERE depth = 0 AND trace_id IN (SELECT unnest($traces)::UUID) ORDER BY service",
                    {"traces": traces},
                ).fetchall()
            ]
            description = f"separate trace {traces[0]}" if len(traces) == 1 else f"{len(traces)} separate traces"
            notes.append(f"{', '.join(services) or 'a service'} started {description}, found by {how}")
        return tuple(notes)


def _read_trace_ids(response: TriggerResponse) -> Iterable[tuple[str, str]]:
    """Yield the headers that contain a trace id, with the id."""
    for header, pattern in TRACE_ID_HEADERS.items():
        value = response.read("headers", (header,))
        match = pattern.search(str(value.value).strip().lower()) if value is not None else None
        if match is not None and match[1].strip("0"):
            yield header, match[1]
