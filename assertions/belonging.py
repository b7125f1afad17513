"""Which traces belong to requests: their own, and those that services began in place of going on with these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from spanproof.assertions.requests import Sent
from spanproof.assertions.triggers.context import RUN_ID, Answer
from spanproof.collector.completeness import Missing, State, examine, has_links, relate
from spanproof.collector.semconv import read_attribute

if TYPE_CHECKING:
    import duckdb

REQUEST: Final = read_attribute("attributes", RUN_ID)
# The newest span, and which traces and request ids those bear that are newer than one.
BEARING: Final = f"""
SELECT coalesce(max(span_key), $after), list(DISTINCT {{'trace_id': trace_id, 'request': {REQUEST}}})
    FILTER (list_contains(attributes.keys, $name))
FROM spans WHERE span_key > $after
"""  # noqa: S608 (a fixed name)
LINKED: Final = """
SELECT DISTINCT trace_id, linked_trace_id, linked_span_id FROM entry_links
WHERE linked_trace_id IN (SELECT unnest($traces)::UUID) AND trace_id NOT IN (SELECT unnest($traces)::UUID)
"""
# Headers in which a response may name its trace, and how they have it.
HEADERS: Final = {
    "traceresponse": re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-"),
    "traceparent": re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-"),
    "server-timing": re.compile(r"\btraceparent\s*;\s*desc\s*=\s*\"?[0-9a-f]{2}-([0-9a-f]{32})-"),
    "x-trace-id": re.compile(r"([0-9a-f]{32})$"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A trace that a service began: the request's own trace, and how it was found.

    ``instead`` says whether it stands in place of the request's own: surely, perhaps (None), or not.
    """

    own: str
    how: str
    instead: bool | None


class Belonging:
    """Finds the traces that belong to requests that were sent, as their spans arrive."""

    def __init__(self, sent: Sent) -> None:
        self._contexts = {context.trace_id: context for context in sent.contexts}
        self._by_request = {context.request_id: context.trace_id for context in sent.contexts if context.run_id}
        self._scanned = sent.last_key
        self._found: dict[str, Found] = {}
        self._named: dict[str, Found] = {}  # by responses; nobody knows yet whether they come
        for context, answer in zip(sent.contexts, sent.answers, strict=False):
            for header, trace_id in _read_headers(answer):
                if trace_id not in self._contexts:
                    how = f"the response's header `{header}`"
                    self._named.setdefault(trace_id, Found(context.trace_id, how, True))

    def relate(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
        """Return all traces that belong to the requests, as derived last."""
        traces = relate(connection, *self._contexts, *self._found)
        while new := dict(self._find_new(connection, traces)):
            self._found |= new
            traces = relate(connection, *self._contexts, *self._found)
        return traces

    @property
    def replaced(self) -> bool:
        """Tell whether traces may stand in place of our own."""
        return bool(self._found or self._named)

    def examine(self, connection: duckdb.DuckDBPyConnection, traces: tuple[str, ...]) -> State:
        """Say how far all traces that belong to the requests have come: those that `relate` has found."""
        state = examine(connection, traces)
        if not self.replaced:
            return state
        empty = {each.hex for (each,) in connection.execute("FROM judged EXCEPT SELECT trace_id FROM tree").fetchall()}
        return self._leave_out(connection, state, empty)

    def _leave_out(self, connection: duckdb.DuckDBPyConnection, state: State, empty: set[str]) -> State:
        """Leave out those of our traces that another stands in place of."""
        certain: dict[str, bool] = {}
        for trace_id, each in self._found.items():
            if each.own in empty and each.instead is not False and trace_id not in empty:
                certain[each.own] = certain.get(each.own, False) or each.instead is True
        waited_for = {
            trace_id: each.own
            for trace_id, each in self._named.items()
            if trace_id not in self._found and each.own in empty and each.own not in certain
        }
        left_out = {*certain, *waited_for.values()}
        if not left_out:
            return state
        traces = relate(connection, *(self._contexts.keys() - left_out), *self._found, *waited_for)
        state = examine(connection, traces)
        unsure = sum(not sure for sure in certain.values())
        if unsure:
            state = replace(state, missing=(*state.missing, Missing("own", False, None, None, unsure)))
        return state

    def _find_new(self, connection: duckdb.DuckDBPyConnection, known: tuple[str, ...]) -> Iterator[tuple[str, Found]]:
        """Yield the traces that belong to those known, and are not among them."""
        linking = connection.execute(LINKED, {"traces": known}).fetchall() if has_links(connection) else []
        for trace_id, linked, span_id in linking:
            context = self._contexts.get(linked.hex)
            ours = context is not None and context.span_id == f"{span_id:016x}"
            yield trace_id.hex, Found(linked.hex, "its link", instead=ours)
        for trace_id, request in self._scan(connection):
            own = self._by_request.get(request)
            if own is not None and trace_id not in known:
                yield trace_id, Found(own, f"the attribute `{RUN_ID}`", instead=None)
        if named := self._named.keys() - self._found.keys() - set(known):
            here = connection.execute(
                "SELECT DISTINCT trace_id FROM tree WHERE trace_id IN (SELECT unnest($traces)::UUID)",
                {"traces": sorted(named)},
            ).fetchall()
            yield from ((each.hex, self._named[each.hex]) for (each,) in here)

    def _scan(self, connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
        """Return the traces and request ids of the spans that bear one, of those that were not scanned yet."""
        if not self._by_request:
            return []
        ((self._scanned, found),) = connection.execute(BEARING, {"after": self._scanned, "name": RUN_ID}).fetchall()
        return [(each["trace_id"].hex, each["request"]) for each in found or ()]

    def find_shown(self, state: State) -> str:
        """Return the trace to show for the first request: its own, or what stands in its place."""
        own = next(iter(self._contexts))
        if own in state.traces:
            return own
        return next((trace_id for trace_id, each in self._found.items() if each.own == own), own)

    def describe(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
        """Say which traces were found, and how."""
        by_how: dict[str, list[str]] = {}
        for trace_id, each in self._found.items():
            by_how.setdefault(each.how, []).append(trace_id)
        notes = []
        for how, traces in sorted(by_how.items()):
            services = [
                f"`{service}`"
                for (service,) in connection.execute(
                    "SELECT DISTINCT service FROM tree WHERE depth = 0 AND trace_id IN (SELECT unnest($traces)::UUID)"
                    " ORDER BY service",
                    {"traces": traces},
                ).fetchall()
            ]
            what = f"trace {traces[0]} of its own" if len(traces) == 1 else f"{len(traces)} traces of their own"
            notes.append(f"{', '.join(services) or 'a service'} began {what}, found by {how}")
        return tuple(notes)


def _read_headers(answer: Answer) -> Iterable[tuple[str, str]]:
    """Yield the headers that name a trace, with its id."""
    for header, pattern in HEADERS.items():
        value = answer.read("headers", (header,))
        found = pattern.search(str(value.value).strip().lower()) if value is not None else None
        if found is not None and found[1].strip("0"):
            yield header, found[1]
