"""Shapes of traces that instrumentations in the field leave, each in random variations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from spanproof.tests.reference.spans import CLIENT, CONSUMER, INTERNAL, PRODUCER, SERVER, Event, Link, Span, Value

if TYPE_CHECKING:
    from spanproof.tests.reference.generate import TraceMaker

Attributes = dict[str, "Value"]
NAMES = ("op", "GET /x", "POST /x")
COUNTERS = (
    ("http.request.resend_count", 0), ("previous-rpc-attempts", 0), ("retry_attempts", 0), ("retry.count", 0),
    ("bullmq.job.attempts.made", 1), ("aws.retry_attempts", 0),
)  # fmt: skip
FAILURES: tuple[Attributes, ...] = (
    {"http.response.status_code": 503}, {"error.type": "ECONNREFUSED"}, {"error.type": "timeout"},
    {"http.response.status_code": 429}, {"error.type": "AbortError"}, {},
)  # fmt: skip
REFUSALS: tuple[Attributes, ...] = ({"http.response.status_code": 404}, {"http.response.status_code": 409})


class ShapeMaker:
    """Adds one shape below a span."""

    def __init__(self, maker: TraceMaker) -> None:
        self.maker = maker

    def add(self, span: Span, at: int, depth: int) -> None:
        shape = SHAPES[self._below(len(SHAPES))]
        self.maker.trace_set.shapes[shape.__name__.strip("_").replace("_", " ")] += 1
        shape(self, span, at, depth)

    def _below(self, n: int) -> int:
        return self.maker.chance.below(n)

    def _pick(self, *options):  # type: ignore[no-untyped-def]
        return options[self._below(len(options))]

    def _put(
        self,
        parent: Span,
        service: str,
        name: str,
        kind: int,
        at: int,
        length: int,
        attributes: Attributes,
        status: int = 0,
    ) -> Span:
        span = self.maker.add_span(parent.trace_id, parent, service, kind, at, length)
        changes = {"name": name, "status": status, "events": ()}
        kept = {**span.attributes, **attributes} if not self._below(6) else dict(attributes)
        return self.maker.change(span, **changes, attributes=kept)

    def _client(self, parent: Span, at: int, length: int, attributes: Attributes, *, name: str = "GET") -> Span:
        failed = "error.type" in attributes or attributes.get("http.response.status_code", 200) != 200
        return self._put(
            parent, parent.service, name, CLIENT, at, length, attributes, 2 if failed and self._below(4) else 0
        )

    def _http(self, method: str | None = None, host: str | None = None) -> Attributes:
        method = method or self._pick("GET", "PUT", "GET", "POST")
        host = host or self._pick("bank", "b.local", "localhost", "10.0.0.7")
        path = self._pick("/1", "/2")
        return self._pick(
            {"http.request.method": method, "url.full": f"http://{host}{path}", "server.address": host},
            {"http.method": method, "http.url": f"http://{host}:8080{path}"},
            {"http.request.method": method, "url.scheme": "http", "url.path": path, "server.address": host},
            {"http.request.method": method, "server.address": host},
            {"http.request.method": method, "url.full": f"http://{host}{path}?*", "server.address": host},
        )

    def _answered(self, client: Span, at: int, length: int, service: str, attributes: Attributes | None = None) -> Span:
        return self._put(client, service, self._pick("op", "GET /x"), SERVER, at, length, attributes or {})

    def _attempts(self, parent: Span, at: int, request: Attributes, *, service: str | None = "b") -> list[Span]:
        """Add attempts one after the other, each but the last a failure most of the time."""
        spans = []
        number = 2 + self._below(2)
        for index in range(number):
            length = 3 + self._below(8)
            outcome = (
                self._pick(*FAILURES)
                if index < number - 1 or not self._below(4)
                else {"http.response.status_code": 200}
            )
            if self._below(8) == 7:
                outcome = self._pick(*REFUSALS)
            client = self._client(parent, at, length, {**request, **outcome})
            spans.append(client)
            status = outcome.get("http.response.status_code")
            if service and (status or not self._below(6)):
                answer: Attributes = {} if status is None else {"http.response.status_code": status}
                self._answered(client, at + 1, self._pick(length - 2, length + 3), service, answer)
            at += length + self._pick(5, 0, 10, 3)
        return spans

    # ## Nesting

    def _framework_over_library(self, span: Span, at: int, _: int) -> None:
        request = self._http()
        outer = self._client(span, at, 60, self._pick(request, {"server.address": "api"}, {}), name="fetch")
        inner = self._put(outer, span.service, "middleware", INTERNAL, at, 58, {}) if self._below(3) == 2 else outer
        self._attempts(inner, at + 1, request) if self._below(2) else self._answered(
            self._client(inner, at + 1, 30, {**request, "http.response.status_code": 200}),
            at + 2,
            20,
            self._pick("b", "c"),
        )

    def _sdk_over_http(self, span: Span, at: int, _: int) -> None:
        sdk: Attributes = self._pick(
            {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "server.address": "llm.example"},
            {"gen_ai.provider.name": "openai"},
            {"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": "Get"},
            {"service.peer.name": "c"},
        )
        failed = self._below(2)
        outer = self._client(span, at, 70, sdk | ({"error.type": "RateLimit"} if failed else {}), name="chat")
        self._attempts(outer, at + 1, self._http("POST", "llm.example"), service=None)

    def _database_over_http(self, span: Span, at: int, _: int) -> None:
        outer = self._client(
            span, at, 40, {"db.system.name": "elasticsearch", "db.operation.name": "search"}, name="search"
        )
        self._client(outer, at + 1, 20, {**self._http("POST"), "http.response.status_code": 200})

    def _database_in_http(self, span: Span, at: int, _: int) -> None:
        outer = self._client(span, at, 40, {**self._http(), "http.response.status_code": 200})
        self._client(outer, at + 1, 20, {"db.system.name": "redis", "db.query.text": "GET"})

    def _other_address_inside(self, span: Span, at: int, _: int) -> None:
        outer = self._client(span, at, 60, {"http.request.method": "GET", "url.full": "http://bank/1"}, name="call")
        self._client(outer, at + 1, 9, {"http.request.method": "POST", "url.full": "http://auth/t"}, name="token")
        if self._below(2):
            self._client(outer, at + 20, 9, {"http.request.method": "GET", "url.full": "http://bank/1"})

    def _producer_in_producer(self, span: Span, at: int, _: int) -> None:
        outer = self._put(span, span.service, "apply", PRODUCER, at, 10, {"messaging.message.id": "t1"})
        inner = self._put(outer, span.service, "publish", PRODUCER, at + 1, 8, {"messaging.system": "rabbitmq"})
        if self._below(3):
            self._put(inner, "b", "run", CONSUMER, at + 12, 10, {"messaging.message.id": "t1"}, self._pick(0, 2))

    # ## Attempts

    def _refused_then_answered(self, span: Span, at: int, _: int) -> None:
        request = self._http()
        parts: list[tuple[Attributes, bool]] = [
            ({"error.type": "ECONNREFUSED"}, False),
            ({"http.response.status_code": 200}, True),
        ]
        if not self._below(3):
            parts = [({"http.response.status_code": 503}, True), ({"error.type": "ECONNREFUSED"}, False)]
        for number, (outcome, is_answered) in enumerate(parts):
            client = self._client(span, at + 20 * number, 10, {**request, **outcome})
            if is_answered:
                self._answered(client, at + 20 * number + 1, 7, "b")

    def _internal_exit(self, span: Span, at: int, _: int) -> None:
        exit_ = self._put(span, span.service, "http.do", INTERNAL, at, 30, self._http(), self._pick(0, 2))
        self._answered(exit_, at + 1, 20, self._pick("b", "c"))

    def _bare_retries(self, span: Span, at: int, _: int) -> None:
        service = "c" if span.service != "c" else "a"
        thing: Attributes = self._pick({"activity.id": "5"}, {"param.driverID": "T1"}, {})
        kind = self._pick(INTERNAL, SERVER, CLIENT)
        for number in range(2 + self._below(2)):
            other = {"param.driverID": "T2"} if thing and self._below(6) == 5 else thing
            self._put(span, service, "run", kind, at + 15 * number, 10, other, 0 if self._below(3) == 2 else 2)

    def _retries_in_own_spans(self, span: Span, at: int, _: int) -> None:
        request = self._http(self._pick("GET", "POST"))
        for number in range(2):
            inner = self._put(span, span.service, "attempt", INTERNAL, at + 20 * number, 15, {})
            outcome = {"http.response.status_code": 503 if number == 0 else 200}
            self._client(inner, at + 20 * number + 1, 10, {**request, **outcome})
            if self._below(6) == 5:
                self._put(inner, span.service, "log", INTERNAL, at + 20 * number + 12, 1, {})

    def _overlapping_clients(self, span: Span, at: int, _: int) -> None:
        request = self._http("GET")
        for number in range(2):
            start = at + 20 * number
            code = 503 if number == 0 else 200
            client = self._client(span, start, 60 - 20 * number, {**request, "http.response.status_code": code})
            self._answered(client, start + 1, self._pick(8, 8, 25), "b", {"http.response.status_code": code})

    def _next_instance(self, span: Span, at: int, _: int) -> None:
        for number, host in enumerate(("10.0.0.1", "10.0.0.2")):
            outcome = {"http.response.status_code": 503 if number == 0 else 200}
            request = {"http.request.method": self._pick("GET", "GET"), "url.full": f"http://{host}/1"}
            client = self._client(span, at + 20 * number, 10, {**request, **outcome})
            if number or self._below(3):
                self._answered(client, at + 20 * number + 1, 7, "b", outcome)

    def _counters(self, span: Span, at: int, _: int) -> None:
        name, first = self._pick(*COUNTERS)
        request = self._http()
        for number in range(2 + self._below(2)):
            outcome = {"http.response.status_code": self._pick(503, 200, 200, 401)}
            counter = {name: number + first} if number or self._below(2) else {}
            self._client(span, at + self._pick(15, 5) * number, 10, {**request, **outcome, **counter})

    def _lone_counter(self, span: Span, at: int, _: int) -> None:
        name, first = self._pick(*COUNTERS)
        outcome = {"http.response.status_code": self._pick(200, 503)}
        client = self._client(span, at, 10, {**self._http(), **outcome, name: 1 + self._below(2) + first})
        if self._below(2):
            self._answered(client, at + 1, 8, "b")

    def _grpc_attempts(self, span: Span, at: int, _: int) -> None:
        kind = self._pick(INTERNAL, CLIENT)
        outer = self._put(span, span.service, "Sent.s/M", kind, at, 50, {})
        for number in range(1 + self._below(3)):
            status = 2 if number == 0 else 0
            counter: Attributes = {"previous-rpc-attempts": number}
            attempt = self._put(outer, span.service, "Attempt.s/M", kind, at + 15 * number, 10, counter, status)
            if self._below(2):
                self._put(attempt, "b", "Recv.s/M", self._pick(SERVER, INTERNAL), at + 15 * number + 1, 8, {})

    # ## Messages

    def _redelivered(self, span: Span, at: int, _: int) -> None:
        identity: Attributes = self._pick({"messaging.message.id": "m1"}, {})
        counted = self._pick("messaging.message.delivery_count", "ApproximateReceiveCount", None)
        producer = self._put(span, span.service, "send", PRODUCER, at, 5, {"messaging.system": "nats", **identity})
        for number in range(1 + self._below(3)):
            counter: Attributes = {} if counted is None else {counted: number + 1}
            self._put(
                producer,
                "b",
                "process",
                CONSUMER,
                at + 10 + 15 * number,
                10,
                {**identity, **counter},
                self._pick(2, 2, 0),
            )

    def _task_again(self, span: Span, at: int, _: int) -> None:
        identity: Attributes = {"messaging.message.id": f"task-{span.span_id}"}
        producer = self._put(span, span.service, "apply", PRODUCER, at, 2, identity)
        run = self._put(producer, "b", "run", CONSUMER, at + 5, 20, identity)
        again = self._put(run, "b", "apply", PRODUCER, at + 15, 2, identity)
        if self._below(3):
            self._put(again, "b", "run", CONSUMER, at + 30, 10, {**identity, "celery.retries": 1}, self._pick(0, 2))

    def _message_in_new_trace(self, span: Span, at: int, _: int) -> None:
        """Deliver a message, and deliver it again (or another one) in a trace that nothing links to the first."""
        identity: Attributes = {"messaging.message.id": f"m-{span.span_id}", "messaging.destination.name": "q"}
        producer = self._put(span, span.service, "send", PRODUCER, at, 2, identity)
        if self._below(4):
            self._put(producer, "b", "process", CONSUMER, at + 5, 20, identity, self._pick(0, 2))
        for number in range(1 + self._below(2)):
            again = self.maker.add_trace("b", CONSUMER, at + 15 * number, 10)
            attributes = {**identity, **self._pick({}, {}, {}, {"messaging.message.id": "other"})}
            self.maker.change(again, name="process", status=self._pick(0, 2), attributes=attributes)

    def _receive_and_process(self, span: Span, at: int, _: int) -> None:
        producer = self._put(span, span.service, "send", PRODUCER, at, 3, {"messaging.system": "kafka"})
        link = (Link(producer.trace_id, producer.span_id),)
        kind = self._pick(CONSUMER, CONSUMER, CLIENT)
        receive = self._put(span, "b", "receive", kind, at + 5, 20, {"messaging.operation.type": "receive"})
        self.maker.change(receive, links=link)
        if self._below(4):
            process = self._put(
                receive, "b", "process", CONSUMER, at + 8, 10, {"messaging.operation.type": "process"}, self._pick(0, 2)
            )
            self.maker.change(process, links=link)

    # ## Arrivals and outcomes

    def _arrivals(self, span: Span, at: int, _: int) -> None:
        client = self._client(
            span, at, self._pick(50, 30), {**self._http("GET"), **self._pick({}, {"http.response.status_code": 200})}
        )
        for number in range(2 + self._below(2)):
            length = self._pick(8, 25, 8)
            outcome: Attributes = {} if self._below(2) else {"http.response.status_code": self._pick(503, 200)}
            self._put(client, "b", "GET /x", SERVER, at + 1 + 15 * number, length, outcome)

    def _differing_attributes(self, span: Span, at: int, _: int) -> None:
        name = self._pick("param.id", "db.query.parameter.0", "app.paid", "graphql.document", "app.attempt", "order.id")
        request: Attributes = self._pick(
            {"db.system.name": "pg", "db.query.text": "SELECT ?"}, {"rpc.system": "grpc", "rpc.method": "M"}
        )
        for number in range(2):
            outcome: Attributes = {} if number else {"error.type": "timeout"}
            asked: Attributes = {**request, name: self._pick("1", "2")}
            client = self._client(span, at + 15 * number, 10, asked | outcome)
            if self._below(2):
                self._answered(client, at + 15 * number + 1, 8, "b", {name: self._pick("1", "1", "2")})

    def _grpc_repeats(self, span: Span, at: int, _: int) -> None:
        request: Attributes = {"rpc.system": "grpc", "rpc.service": "s", "rpc.method": "M"}
        request |= {"server.address": "localhost", "server.port": 5000}
        for number in range(2):
            code = self._pick(14, 5, 1, 4, 0) if number == 0 else self._pick(0, 0, 14, 3)
            client = self._client(span, at + 15 * number, 10, {**request, "rpc.grpc.status_code": code})
            if self._below(2):
                own = code if self._below(2) else 0
                self._answered(
                    client, at + 15 * number + 1, 8, "b", {"rpc.system": "grpc", "rpc.grpc.status_code": own}
                )

    def _aborted(self, span: Span, at: int, _: int) -> None:
        error_type = self._pick(None, "AbortError", "context_canceled", "TimeoutError")
        reason: Attributes = {} if error_type is None else {"error.type": error_type}
        client = self._client(span, at, 20, {**self._http("GET"), **reason})
        if self._below(2):
            self._answered(client, at + 1, self._pick(30, 10), "b")

    def _fallback(self, span: Span, at: int, _: int) -> None:
        self._client(
            span, at, 10, {"http.request.method": "GET", "url.full": "http://bank/1", "http.response.status_code": 503}
        )
        code = self._pick(200, 500, 404, 503)
        self._client(
            span,
            at + 15,
            10,
            {"http.request.method": "GET", "url.full": "http://c/1", "http.response.status_code": code},
        )

    def _unfinished(self, span: Span, at: int, _: int) -> None:
        client = self._client(span, at, 20, self._http())
        server = self._answered(client, at + 1, 10, "b")
        self.maker.change(self._pick(client, server), unfinished=True)

    def _exception(self, span: Span, at: int, _: int) -> None:
        request = self._http("GET")
        client = self._client(span, at, 10, request)
        self.maker.change(client, events=(Event("exception", client.start_ns, {"exception.type": "Timeout"}),))
        self._client(span, at + 15, 10, {**request, "http.response.status_code": 200})


SHAPES: tuple[Callable[[ShapeMaker, Span, int, int], None], ...] = tuple(
    method for name, method in vars(ShapeMaker).items()
    if name.startswith("_") and not name.startswith("__")
    and name not in ("_below", "_pick", "_put", "_client", "_http", "_answered", "_attempts")
)  # fmt: skip
