"""Attempts: one request and its answer, as the caller observed it."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from spanproof.tests.reference.deliveries import delivered_in_other_traces, drop_receives, linked_to
from spanproof.tests.reference.nesting import Nesting, exit_above, list_entries_inside
from spanproof.tests.reference.peers import name_peers
from spanproof.tests.reference.spans import CLIENT, CONSUMER, INTERNAL, PRODUCER, SERVER, Forest, Span, Value, read
from spanproof.tests.reference.statuses import is_redirect, is_retryable_http, is_retryable_rpc
from spanproof.tests.reference.targets import address_of, protocol_of, text_of


class Try(Struct, frozen=True, eq=False):
    """One attempt.

    ``exit`` is missing in a bare call, ``server`` in an unanswered one. ``below`` is the span that made the attempt:
    the parent of the exit span, or of a bare server span. ``wrappers`` are the wrapper spans, the nearest first.
    ``callee_spans`` are in order of their start. An arrival (one of several server spans of one client span) has its
    own interval, and is ``cut`` if it got no response.
    """

    forest: Forest
    trace_id: str
    caller: str
    callee: str
    asynchronous: bool
    entry: Span | None
    below: Span | None
    exit: Span | None
    server: Span | None
    callee_spans: tuple[Span, ...]
    wrappers: tuple[Span, ...] = ()
    interval: tuple[int, int] | None = None
    cut: bool = False
    is_arrival: bool = False

    @property
    def primary_span(self) -> Span:
        """The span that determines the result: the span of the caller if there is one."""
        span = self.exit or self.server
        assert span is not None
        return span

    @property
    def own_span(self) -> Span:
        """The span whose times and error are those of the attempt: of a message, the consumer span.

        An arrival's own span says how it ended.
        """
        is_callees = self.asynchronous or self.is_arrival
        return self.server if is_callees and self.server is not None else self.primary_span

    @property
    def naming_span(self) -> Span:
        """The outermost wrapper span that names a peer, else the exit span."""
        return next((span for span in reversed(self.wrappers) if names_peer(span)), self.primary_span)

    @property
    def operation(self) -> str:
        return (self.server or self.naming_span).name

    @property
    def start_ns(self) -> int:
        return self.interval[0] if self.interval else self.own_span.start_ns

    @property
    def end_ns(self) -> int:
        return self.interval[1] if self.interval else self.own_span.end_ns

    @property
    def over_ns(self) -> int:
        """When the attempt is over: at the end of its server span, too, if a response status is recorded."""
        if self.interval:
            return self.end_ns
        if self.asynchronous or self.exit is None or self.server is None:
            return self.end_ns
        if (self.exit.http_status is None and self.exit.rpc_status is None) or self.server.unfinished:
            return self.end_ns
        return min(self.end_ns, self.server.end_ns)

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def network_ns(self) -> int | None:
        if self.exit is None or self.server is None or self.asynchronous or self.is_arrival:
            return None
        return self.duration_ns - self.server.duration_ns

    @property
    def lag_ns(self) -> int | None:
        if self.exit is None or self.server is None or not self.asynchronous:
            return None
        return self.server.start_ns - self.exit.end_ns

    @property
    def status(self) -> int:
        return self.own_span.status

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans that attributes come from, in their order."""
        first_two = (self.server, self.exit) if self.is_arrival else (self.exit, self.server)
        return tuple(span for span in (*first_two, *self.wrappers) if span is not None)

    def attribute(self, name: str, *, at_caller: bool = False) -> Value | None:
        spans = (self.exit, self.server, *self.wrappers) if at_caller else self.spans
        return next((value for span in spans if span and (value := read(span.attributes, name)) is not None), None)

    @property
    def protocol(self) -> str:
        """The protocol that the first span names; a delivered message is one, whatever sent it."""
        named = next((protocol for span in self.spans if (protocol := protocol_of(span)) is not None), "other")
        is_delivered = self.asynchronous and self.server is not None
        return "messaging" if is_delivered and named != "db" else named

    @property
    def method(self) -> str | None:
        span = self.primary_span
        return text_of(span, "http.request.method") or text_of(span, "rpc.method")

    # ## Outcome

    def _status_span(self) -> Span:
        """Return the span whose response status counts."""
        span = self.own_span
        if span is self.exit and self.received_status_of_server:
            assert self.server is not None
            return self.server
        return span

    @property
    def received_status_of_server(self) -> bool:
        """Return whether the response that the client did not record is the one that the server sent.

        Where the client reports an error, a success of the server does not explain it: the response was lost.
        """
        if not self._was_answered_before_end:
            return False
        assert self.exit is not None
        assert self.server is not None
        if self.exit.http_status is not None or self.exit.rpc_status is not None:
            return False
        http, rpc = self.server.http_status, self.server.rpc_status
        reports_error = (
            self.forest.error(self.exit)
            or read(self.exit.attributes, "error.type") is not None
            or self.exit.has_exception
        )
        return not reports_error or (http is not None and http >= 400) or rpc not in (None, "OK")

    @property
    def _was_answered_before_end(self) -> bool:
        """Return whether the server span had ended when the client span did."""
        return (
            self.exit is not None
            and self.server is not None
            and not self.is_arrival
            and not self.server.unfinished
            and self.server.end_ns <= self.exit.end_ns
        )

    @property
    def http_status(self) -> Fraction | None:
        return self._status_span().http_status

    @property
    def error(self) -> bool:
        return self.forest.error(self.own_span)

    @property
    def no_response(self) -> bool:
        """Return whether no response came: a finished HTTP client span with a method and without a status."""
        if self.cut:
            return True
        span = self.exit
        if span is None or self.asynchronous or self.is_arrival or span.unfinished:
            return False
        if read(span.attributes, "http.request.method") is None or self.received_status_of_server:
            return False
        return self.http_status is None

    @property
    def failed_retryably(self) -> bool:
        if self.cut:
            return True
        own, span = self.own_span, self._status_span()
        status = span.rpc_status
        if status is not None:
            return is_retryable_rpc(status) or (status == "CANCELLED" and self._was_cancelled_by_callee())
        if span.http_status is not None:
            return is_retryable_http(span.http_status)
        has_type = read(own.attributes, "error.type") is not None
        return self.error or has_type or own.has_exception or self.no_response or self.forest.error(span)

    def _was_cancelled_by_callee(self) -> bool:
        return self.server is not None and self.server.rpc_status == "CANCELLED"

    @property
    def failed(self) -> bool:
        return self.error or self.failed_retryably

    @property
    def is_redirect(self) -> bool:
        """Return whether the attempt is repeated without a failure: a redirect or a request for credentials."""
        return is_redirect(self.http_status)

    @property
    def each(self) -> tuple[Try, ...]:
        """The single attempts: the arrivals if the retries are below the instrumentation, else this attempt."""
        return tuple(self._arrivals()) or (self,)

    @property
    def retried_callee_spans(self) -> tuple[Span, ...]:
        """The callee spans of retries: each follows, or precedes, one that failed retryably or was still running."""
        if self.exit is None or self.asynchronous or self.forest.kind(self.exit) != CLIENT:
            return ()
        retried = set()
        servers = [span for span in self.callee_spans if self.forest.kind(span) == SERVER]
        for operation in {span.name for span in servers}:
            same = [span for span in servers if span.name == operation]
            for span, next_span in itertools.pairwise(same):
                if callee_failed(span, self.forest) or _was_running(span, next_span.start_ns):
                    retried |= {span, next_span}
        return tuple(span for span in self.callee_spans if span in retried)

    def _arrivals(self) -> Iterator[Try]:
        spans = self.retried_callee_spans
        assert self.exit is not None or not spans
        for span, next_span in itertools.pairwise((*spans, None)):
            assert span is not None
            if next_span is not None:
                cut = _was_running(span, next_span.start_ns)
                end_ns = next_span.start_ns if cut and not span.unfinished else span.end_ns
                yield replace(self, exit=None, server=span, interval=(span.start_ns, end_ns), cut=cut, is_arrival=True)
            else:
                assert self.exit is not None
                cut = (
                    self.exit.http_status is None
                    and self.exit.rpc_status is None
                    and _was_running(span, self.exit.end_ns)
                )
                end_ns = max(self.exit.end_ns, span.start_ns) if cut else span.end_ns
                yield replace(self, server=span, interval=(span.start_ns, end_ns), cut=cut, is_arrival=True)


def _was_running(span: Span, at_ns: int) -> bool:
    return span.unfinished or span.end_ns > at_ns


def callee_failed(span: Span, forest: Forest) -> bool:
    """Return whether a request failed retryably, as its callee observed it."""
    bare = Try(forest, span.trace_id, "", span.service, False, None, None, None, span, (span,))
    return bare.failed_retryably


def names_peer(span: Span) -> bool:
    names = ("service.peer.name", "db.system.name", "messaging.system", "gen_ai.provider.name")
    return address_of(span) is not None or any(read(span.attributes, name) is not None for name in names)


def derive_tries(forest: Forest, nesting: Nesting) -> tuple[Try, ...]:
    """Return all attempts of the four shapes, with their callees' names."""
    return name_peers(tuple(_derive_all(forest, nesting)), forest)


def _derive_all(forest: Forest, nesting: Nesting) -> Iterator[Try]:
    answers = _assign_answers(forest, nesting)
    for span in forest.spans:
        if forest.is_proxy(span):
            continue
        if span in answers:
            yield from _derive_attempts(span, answers[span], forest, nesting)
        parent = forest.parent(span)
        if (
            parent
            and forest.is_entry(span)
            and parent.service != span.service
            and not forest.is_proxy(parent)
            and not forest.is_exit(parent)
            and exit_above(parent, forest) is None
        ):
            entry = forest.entry(parent)
            bare = forest, span.trace_id, parent.service, span.service, False, entry, parent, None, span
            yield Try(*bare, (span,))


def _derive_attempts(exit_: Span, answered_by: list[Span], forest: Forest, nesting: Nesting) -> Iterator[Try]:
    """Yield the attempts of an exit span.

    There is one for each service that answered, and for each delivery of a message; else one to the peer.
    """
    wrappers = nesting.wrappers(exit_)
    answers: dict[tuple[str, bool], list[Span]] = defaultdict(list)
    for span in sorted(answered_by, key=lambda span: span.start_ns):
        is_message = PRODUCER in (exit_.kind, *(each.kind for each in wrappers)) or forest.kind(span) == CONSUMER
        answers[span.service, is_message].append(span)
    below, entry = forest.parent(exit_), forest.entry(exit_)
    for (service, is_message), spans in answers.items():
        if is_message:
            for span in drop_receives(spans, forest):
                yield Try(
                    forest, exit_.trace_id, exit_.service, service, True, entry, below, exit_, span, (span,), wrappers
                )
        else:
            yield Try(
                forest,
                exit_.trace_id,
                exit_.service,
                service,
                False,
                entry,
                below,
                exit_,
                spans[-1],
                tuple(spans),
                wrappers,
            )
    if not answers:
        is_message = exit_.kind == PRODUCER
        yield Try(forest, exit_.trace_id, exit_.service, "", is_message, entry, below, exit_, None, (), wrappers)


def _assign_answers(forest: Forest, nesting: Nesting) -> dict[Span, list[Span]]:
    """Return the entry spans that answer each exit span which is no wrapper span.

    An entry span right below a wrapper span answers the inner exit span that started last before it, of those without
    an answer of their own; if there is none of these, the wrapper span.
    """
    direct = {span: _list_answers(span, forest) for span in forest.spans if forest.is_exit(span)}
    answers = {span: list(spans) for span, spans in direct.items() if span not in nesting.wrapper_spans}
    inner_exits = tuple(answers)
    for wrapper in nesting.wrapper_spans:
        inner = [span for span in inner_exits if wrapper in nesting.wrappers(span) and not direct[span]]
        for answer in direct[wrapper]:
            before = [span for span in inner if span.start_ns <= answer.start_ns]
            answered = (
                max(before, key=lambda span: span.start_ns)
                if before
                else min(inner, key=lambda span: span.start_ns, default=wrapper)
            )
            answers.setdefault(answered, []).append(answer)
    return answers


def _list_answers(exit_: Span, forest: Forest) -> list[Span]:
    """Return the entry spans right below an exit span, and the consumer spans that link to it."""
    answers = set(list_entries_inside(exit_, forest))
    if exit_.kind == PRODUCER:
        answers |= {*linked_to(exit_, forest), *delivered_in_other_traces(exit_, forest)}
    return list(answers)


def count_attempts(tries: tuple[Try, ...], forest: Forest) -> Counter[Span]:
    """Return the number of attempts that each span holds, less those made for requests that were served below it."""
    counts: Counter[Span] = Counter()
    for one in tries:
        span = one.exit or one.below
        while span is not None:
            counts[span] += 1
            span = None if forest.is_entry(span) else forest.parent(span)
    return counts


def find_maker(one: Try, counts: Counter[Span]) -> Span | str | None:
    """Return the span that made an attempt, less wrapper spans and INTERNAL spans that hold no other attempt.

    `counts` is the number of attempts that each span holds.
    """
    forest, span = one.forest, one.below
    if span is None:
        return one.primary_span.parent_id
    while span in one.wrappers or (counts[span] == 1 and _is_plain_internal(span, forest)):
        above = forest.parent(span)
        if above is None:
            return span.parent_id or (span if span not in one.wrappers else None)
        span = above
    return span


def _is_plain_internal(span: Span, forest: Forest) -> bool:
    return forest.kind(span) == INTERNAL and not forest.is_exit(span) and not forest.is_entry(span)
