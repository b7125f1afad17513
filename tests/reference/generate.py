"""Generator of small trace sets with all kinds of irregularities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.tests.reference.shapes import ShapeMaker
from spanproof.tests.reference.spans import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    PRODUCER,
    SERVER,
    Event,
    Link,
    Span,
    Value,
)

T = TypeVar("T")
MS = 1_000_000
SERVICES = ("a", "b", "c")
OPERATIONS = ("op", "GET /x", "POST /x")


class Chance(Protocol):
    """A source of random choices; small numbers are the simple choices."""

    def below(self, n: int) -> int:
        """Return a number from 0 to `n` - 1."""


def pick(chance: Chance, options: Sequence[T]) -> T:
    return options[chance.below(len(options))]


def rarely(chance: Chance, one_in: int = 8) -> bool:
    return chance.below(one_in) == one_in - 1


class TraceSet(Struct):
    """Spans in sending order, and whether each trace is settled: of those to judge, and of those of a baseline."""

    spans: list[Span] = field(default_factory=list)
    settled: dict[str, bool] = field(default_factory=dict)
    shapes: Counter[str] = field(default_factory=Counter)
    baseline: dict[str, bool] = field(default_factory=dict)


class TraceMaker:
    """Generator of one trace set."""

    def __init__(self, chance: Chance, size: int = 12) -> None:
        self.chance = chance
        self.size = size
        self.trace_set = TraceSet()
        self.starts: set[int] = set()

    def make(self) -> TraceSet:
        for index in range(1 + self.chance.below(3)):
            trace_id = f"{index + 1:032x}"
            self.trace_set.settled[trace_id] = not rarely(self.chance, 5)
            self._request(trace_id, None, pick(self.chance, SERVICES), 10 * self.chance.below(4), 0)
        self._link()
        if rarely(self.chance, 8):
            self.change(pick(self.chance, self.trace_set.spans), unfinished=True)
            self.trace_set.shapes["unfinished"] += 1
        self._disturb()
        return self.trace_set

    def add_span(self, *place: object) -> Span:
        return self._span(*place)  # type: ignore[arg-type]

    def add_trace(self, service: str, kind: int, start: int, length: int) -> Span:
        """Add a trace; return its root."""
        trace_id = f"{len(self.trace_set.settled) + 100:032x}"
        self.trace_set.settled[trace_id] = not rarely(self.chance, 5)
        return self._span(trace_id, None, service, kind, start, length)

    def _shape(self, span: Span, at: int, depth: int) -> None:
        ShapeMaker(self).add(span, at, depth)

    def _below(self, n: int) -> int:
        return self.chance.below(n)

    def _full(self) -> bool:
        return len(self.trace_set.spans) >= self.size

    def _span(self, trace_id: str, parent: Span | None, service: str, kind: int, start: int, length: int) -> Span:
        start_ns = start * MS
        while start_ns in self.starts:
            start_ns += 1
        self.starts.add(start_ns)
        span = Span(
            trace_id=trace_id,
            span_id=f"{len(self.trace_set.spans) + 1:016x}",
            parent_id=parent.span_id if parent else None,
            service=service,
            name=pick(self.chance, OPERATIONS),
            kind=kind,
            start_ns=start_ns,
            end_ns=(start + length) * MS,
            status=pick(self.chance, (0, 0, 0, 1, 2)),
            attributes=self._extras(),
            resource={"service.version": pick(self.chance, ("1", "2"))} if rarely(self.chance, 4) else {},
            events=(self._event(start_ns),) if rarely(self.chance, 6) else (),
        )
        self.trace_set.spans.append(span)
        return span

    def _length(self) -> int:
        return -3 if rarely(self.chance, 20) else 5 * self._below(9)

    def _extras(self) -> dict[str, Value]:
        attributes: dict[str, Value] = {}
        if rarely(self.chance, 3):
            attributes["app.n"] = pick(self.chance, (1, 2, "2", "x", 1.5, -1, True))
        if rarely(self.chance, 5):
            tags: tuple[list[Value], ...] = (["x"], ["x", "y"], [], [1, 2], [2])
            attributes["app.tags"] = pick(self.chance, tags)
        if rarely(self.chance, 6):
            attributes["plain"] = pick(self.chance, ("x", "y", True, "true"))
        return attributes

    def _event(self, at_ns: int) -> Event:
        attributes: dict[str, Value] = {"exception.type": "Timeout"} if self._below(2) else {}
        return Event(pick(self.chance, ("exception", "note")), at_ns, attributes)

    # ## Requests and their work

    def _request(self, trace_id: str, parent: Span | None, service: str, start: int, depth: int) -> Span:
        kind = SERVER if not rarely(self.chance, 6) else pick(self.chance, (CONSUMER, INTERNAL, CLIENT))
        span = self._span(trace_id, parent, service, kind, start, self._length() + (60 if not depth else 0))
        if self._below(2):
            self._put(span, self._http_answer())
        self._work(span, start, depth)
        return span

    def _work(self, span: Span, start: int, depth: int) -> None:
        if depth > 3:
            return
        at = start
        for _ in range(self._below(4) if depth else 1 + self._below(3)):
            if self._full():
                return
            at += 5 * self._below(4)
            action = pick(
                self.chance,
                (self._call, self._call, self._tries, self._repeat_server, self._publish, self._inside, self._bare)
                + (self._shape,) * 10,
            )
            action(span, at, depth + 1)

    def _call(self, span: Span, at: int, depth: int) -> None:
        client = self._span(span.trace_id, span, span.service, CLIENT, at, self._length())
        self._put(client, self._outgoing())
        if self._below(2):
            self._request(span.trace_id, client, pick(self.chance, SERVICES), at + self._below(6), depth)

    def _tries(self, span: Span, at: int, depth: int) -> None:
        """Add repeated attempts of the same call."""
        request_attributes = self._outgoing()
        name = pick(self.chance, OPERATIONS)
        for number in range(2 + self._below(3)):
            length = self._length()
            client = self._span(span.trace_id, span, span.service, CLIENT, at, length)
            client = self.change(client, name=name)
            self._put(client, request_attributes | self._answer(request_attributes))
            if rarely(self.chance, 6) and number and {"url.full", "http.url"} & set(request_attributes):
                self._put(client, {pick(self.chance, ("http.request.resend_count", "http.resend_count")): number})
            if rarely(self.chance, 4):
                self._request(span.trace_id, client, "b", at + 1, depth + 2)
            gaps = (5, 0, 10, 20, -5, 60_000, 60_001) if rarely(self.chance, 12) else (5, 0, 10, 20, -5)
            at += length + pick(self.chance, gaps)

    def _repeat_server(self, span: Span, at: int, depth: int) -> None:
        """Add one client span with several server spans."""
        client = self._span(span.trace_id, span, span.service, CLIENT, at, 5 * self._below(12))
        self._put(client, self._outgoing())
        service = pick(self.chance, SERVICES)
        for _ in range(1 + self._below(3)):
            length = self._length()
            other = service if not rarely(self.chance, 5) else pick(self.chance, SERVICES)
            server = self._span(span.trace_id, client, other, SERVER, at, length)
            self._put(server, self._http_answer())
            self.change(server, name=OPERATIONS[0] if not rarely(self.chance, 4) else OPERATIONS[1])
            at += length + pick(self.chance, (0, 5, -5, 10))
        if self._below(2) and depth < 3:
            self._work(self.trace_set.spans[-1], at, depth + 1)

    def _publish(self, span: Span, at: int, depth: int) -> None:
        producer = self._span(span.trace_id, span, span.service, PRODUCER, at, self._length())
        self._put(producer, {"messaging.system": "nats", "messaging.destination.name": "orders"})
        if self._below(2):
            consumer = self._span(
                span.trace_id,
                producer,
                pick(self.chance, SERVICES),
                CONSUMER if not rarely(self.chance, 6) else SERVER,
                at + self._below(30),
                self._length(),
            )
            self._work(consumer, at + 5, depth + 2)

    def _inside(self, span: Span, at: int, depth: int) -> None:
        kind = pick(self.chance, (INTERNAL, INTERNAL, SERVER, CONSUMER))
        inner = self._span(span.trace_id, span, span.service, kind, at, self._length())
        self._work(inner, at, depth)

    def _bare(self, span: Span, at: int, depth: int) -> None:
        self._request(span.trace_id, span, pick(self.chance, SERVICES), at, depth + 1)

    def _outgoing(self) -> dict[str, Value]:
        """Return the attributes of a client span about its request."""
        peer: dict[str, Value] = pick(
            self.chance,
            (
                {"server.address": "bank"},
                {"server.address": "b.local"},
                {"net.peer.name": "b"},
                {"service.peer.name": "c"},
                {"peer.service": "bank", "server.address": "b"},
                {},
            ),
        )
        attributes: dict[str, Value] = pick(
            self.chance,
            (
                {"http.request.method": "GET", "url.full": "http://x/1", **peer},
                {"http.method": "GET", "http.url": "http://x/2", **peer},
                {"http.request.method": "GET", **peer},
                {"db.system.name": "pg", "db.query.text": "SELECT 1", **peer},
                {"db.system": "pg", "db.statement": "SELECT 1"},
                {"rpc.system": "grpc", "rpc.service": "s", "rpc.method": "M", **peer},
                peer,
            ),
        )
        attributes = dict(attributes)
        if "rpc.system" in attributes and self._below(2):
            attributes |= pick(
                self.chance,
                (
                    {"rpc.grpc.status_code": 0},
                    {"rpc.grpc.status_code": 14},
                    {"rpc.response.status_code": "UNAVAILABLE"},
                    {"rpc.response.status_code": "OK"},
                    {"previous-rpc-attempts": 1},
                ),
            )
        return attributes | (self._answer(attributes) if self._below(2) else {})

    def _answer(self, request_attributes: dict[str, Value]) -> dict[str, Value]:
        if {"http.request.method", "http.method"} & set(request_attributes):
            return self._http_answer()
        return {"error.type": "timeout"} if rarely(self.chance, 3) else {}

    def _http_answer(self) -> dict[str, Value]:
        attributes: dict[str, Value] = {}
        status = pick(self.chance, (200, 503, None, 429, 404, 401, 302, 500, "503"))
        if status is not None:
            attributes[pick(self.chance, ("http.response.status_code", "http.status_code"))] = status
        if rarely(self.chance, 6):
            attributes["error.type"] = "timeout"
        return attributes

    # ## Irregularities

    def change(self, span: Span, **changes: object) -> Span:
        index = self.trace_set.spans.index(span)
        self.trace_set.spans[index] = replace(span, **changes)  # type: ignore[arg-type]
        return self.trace_set.spans[index]

    def _put(self, span: Span, attributes: dict[str, Value]) -> None:
        span.attributes.update(attributes)

    def _link(self) -> None:
        producers = [span for span in self.trace_set.spans if span.kind in (PRODUCER, CLIENT)]
        for span in list(self.trace_set.spans):
            if span.kind == CONSUMER and producers and self._below(2):
                to = pick(self.chance, producers)
                self.change(span, links=(Link(to.trace_id, to.span_id),))

    def _disturb(self) -> None:
        if rarely(self.chance, 3):
            self._skew(pick(self.chance, SERVICES), pick(self.chance, (7, -7, 40)))
        for span in list(self.trace_set.spans):
            if span.parent_id is not None and rarely(self.chance, 14):
                self.change(span, parent_id="f" + span.span_id[1:])
        if rarely(self.chance, 10):
            self._make_cycle()
        if rarely(self.chance, 8):
            self._share_id()
        if rarely(self.chance, 8):
            span = pick(self.chance, self.trace_set.spans)
            longer = (
                span
                if span.unfinished
                else replace(span, end_ns=span.end_ns + 7 * MS, attributes={**span.attributes, "app.n": 2})
            )
            self.trace_set.spans.insert(self._below(len(self.trace_set.spans) + 1), longer)

    def _skew(self, service: str, by: int) -> None:
        for span in list(self.trace_set.spans):
            if span.service == service:
                self.change(span, start_ns=span.start_ns + by * MS + 1, end_ns=span.end_ns + by * MS + 1)

    def _make_cycle(self) -> None:
        span = pick(self.chance, self.trace_set.spans)
        candidates = [other for other in self.trace_set.spans if other.trace_id == span.trace_id]
        self.change(span, parent_id=pick(self.chance, candidates).span_id)

    def _share_id(self) -> None:
        """Give a server the span id of its client, as Zipkin's instrumentation does."""
        for client in list(self.trace_set.spans):
            if client.kind != CLIENT:
                continue
            servers = [
                span for span in self.trace_set.spans if span.parent_id == client.span_id and span.kind == SERVER
            ]
            if len(servers) == 1:
                (server,) = servers
                for child in list(self.trace_set.spans):
                    if child.parent_id == server.span_id and child.trace_id == server.trace_id:
                        self.change(child, parent_id=client.span_id)
                self.change(server, span_id=client.span_id, parent_id=client.parent_id)
                return
