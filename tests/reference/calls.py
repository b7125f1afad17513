"""Attempts (one request and its answer) and the logical calls that they form."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from spanproof.tests.reference.spans import (
    CONSUMER,
    PRODUCER,
    Forest,
    Span,
    Value,
    as_number,
    as_text,
    is_error,
    read,
)

RETRYABLE_HTTP: Final = (408, 425, 429)


@dataclass(frozen=True, slots=True, eq=False)
class Try:
    """One attempt, as the caller observed it.

    ``exit`` is missing in a bare call, ``server`` in an unanswered one. ``below`` is the span that made the attempt:
    the parent of the exit span, or of a bare server span. ``callee_spans`` are in order of their start.
    """

    trace_id: str
    caller: str
    callee: str
    asynchronous: bool
    entry: Span | None
    below: Span | None
    exit: Span | None
    server: Span | None
    callee_spans: tuple[Span, ...]

    @property
    def primary_span(self) -> Span:
        """The span that determines the result: the span of the caller if there is one."""
        span = self.exit or self.server
        assert span is not None
        return span

    @property
    def operation(self) -> str:
        return (self.server or self.primary_span).name

    @property
    def start_ns(self) -> int:
        return self.primary_span.start_ns

    @property
    def end_ns(self) -> int:
        return self.server.end_ns if self.asynchronous and self.server else self.primary_span.end_ns

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def network_ns(self) -> int | None:
        if self.exit is None or self.server is None or self.asynchronous:
            return None
        return self.duration_ns - self.server.duration_ns

    @property
    def lag_ns(self) -> int | None:
        if self.exit is None or self.server is None or not self.asynchronous:
            return None
        return self.server.start_ns - self.exit.end_ns

    @property
    def status(self) -> int:
        return self.primary_span.status

    def attribute(self, name: str) -> Value | None:
        for span in (self.exit, self.server):
            value = None if span is None else read(span.attributes, name)
            if value is not None:
                return value
        return None

    @property
    def protocol(self) -> str:
        """The protocol, by the attributes of either span."""

        def has_any(*names: str) -> bool:
            return any(self.attribute(name) is not None for name in names)

        if has_any("db.system.name"):
            return "db"
        if has_any("messaging.system") or (self.asynchronous and self.server is not None):
            return "messaging"
        if has_any("rpc.system.name", "rpc.service"):
            return "rpc"
        return "http" if has_any("http.request.method", "url.full", "http.response.status_code") else "other"

    @property
    def http_status(self) -> Fraction | None:
        return as_number(self.attribute("http.response.status_code"))

    @property
    def error(self) -> bool:
        if self.asynchronous and self.server is not None and self.server.error:
            return True
        return is_error(self.status, self.http_status, self.attribute("rpc.response.status_code"))

    @property
    def failed_retryably(self) -> bool:
        return _is_retryable(self.error, self.http_status, self.attribute("error.type"))

    @property
    def failed(self) -> bool:
        return self.error or self.failed_retryably

    @property
    def is_redirect(self) -> bool:
        """Return whether the attempt is repeated without a failure: a redirect or a request for credentials."""
        return _is_never_retryable(self.http_status)

    @property
    def retried_callee_spans(self) -> tuple[Span, ...]:
        """The callee spans of retries: each follows, or precedes, one that failed retryably or was still running."""
        retried = set()
        for operation in {span.name for span in self.callee_spans}:
            same = [span for span in self.callee_spans if span.name == operation]
            for span, next_span in itertools.pairwise(same):
                if callee_failed(span) or span.end_ns > next_span.start_ns:
                    retried |= {span, next_span}
        return tuple(span for span in self.callee_spans if span in retried)

    @property
    def each(self) -> tuple[Try, ...]:
        """The single attempts: the callee spans if the retries are below the instrumentation, else this attempt."""
        return tuple(replace(self, exit=None, server=span) for span in self.retried_callee_spans) or (self,)


def _is_never_retryable(http_status: Fraction | None) -> bool:
    return http_status is not None and (http_status in (401, 407) or 300 <= http_status < 400)


def _is_retryable(error: bool, http_status: Fraction | None, error_type: Value | None) -> bool:
    if _is_never_retryable(http_status):
        return False
    return error or error_type is not None or http_status in RETRYABLE_HTTP


def callee_failed(span: Span) -> bool:
    """Return whether a request failed retryably, as its callee observed it."""
    return _is_retryable(span.error, span.http_status, read(span.attributes, "error.type"))


@dataclass(frozen=True, slots=True, eq=False)
class Logical:
    """A logical call: one or more attempts of the same request, in order of their start.

    ``each`` are its single attempts: the tries, with a try that has several retried callee spans replaced by these.
    """

    tries: tuple[Try, ...]
    each: tuple[Try, ...]

    @property
    def first(self) -> Try:
        return self.tries[0]

    @property
    def last(self) -> Try:
        return self.tries[-1]

    @property
    def start_ns(self) -> int:
        return self.first.start_ns

    @property
    def end_ns(self) -> int:
        return self.last.end_ns

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def attempts(self) -> int:
        return len(self.each)


class Calls:
    """All calls of a topology."""

    def __init__(self, forest: Forest, max_retry_gap_ns: int) -> None:
        self.max_retry_gap_ns = max_retry_gap_ns
        self.forest = forest
        self.services = {span.service for span in forest.spans}
        self.tries = tuple(self._tries())
        self.logical = tuple(self._join(self.tries))
        self.of = {one: logical for logical in self.logical for one in (*logical.tries, *logical.each)}

    # ## The four shapes

    def _tries(self) -> Iterable[Try]:
        forest = self.forest
        for span in forest.spans:
            if span.service in forest.proxies:
                continue
            if span.is_exit and not any(child.is_rpc_attempt for child in forest.children(span)):
                yield from self._derive_attempts(span)
            parent = forest.parent(span)
            if (
                parent
                and forest.is_entry(span)
                and parent.service not in (span.service, *forest.proxies)
                and not parent.is_exit
            ):
                entry = forest.entry(parent)
                yield Try(
                    span.trace_id, parent.service, span.service, False, entry, parent, None, span, (span,)
                )  # bare

    def _derive_attempts(self, exit_: Span) -> Iterable[Try]:
        """Yield the attempts of an exit span: one for each service that answered, else one to its peer."""
        forest = self.forest
        answers = {
            span for span in forest.children(exit_) if forest.is_entry(span) and span.service not in forest.proxies
        }
        if exit_.kind == PRODUCER:
            answers |= set(self._linked_to(exit_))
        parent, entry = forest.parent(exit_), forest.entry(exit_)
        answers_by_service: dict[tuple[str, bool], list[Span]] = defaultdict(list)
        for span in answers:
            answers_by_service[span.service, exit_.kind == PRODUCER or span.kind == CONSUMER].append(span)
        for (service, asynchronous), spans in answers_by_service.items():
            spans.sort(key=lambda span: span.start_ns)
            yield Try(
                exit_.trace_id, exit_.service, service, asynchronous, entry, parent, exit_, spans[-1], tuple(spans)
            )
        if not answers_by_service:
            is_message = exit_.kind == PRODUCER
            yield Try(exit_.trace_id, exit_.service, self._peer(exit_), is_message, entry, parent, exit_, None, ())

    def _linked_to(self, producer: Span) -> Iterable[Span]:
        for span in self.forest.spans:
            if span.kind == CONSUMER and any(
                (link.trace_id, link.span_id) == (producer.trace_id, producer.span_id) for link in span.links
            ):
                yield span

    def _peer(self, exit_: Span) -> str:
        for name in ("service.peer.name", "db.system.name", "messaging.system"):
            value = as_text(read(exit_.attributes, name))
            if value is not None:
                return value
        address = as_text(read(exit_.attributes, "server.address"))
        if address is None:
            return "unknown"
        label = address.split(".")[0]
        return label if label in self.services else address

    # ## Attempts

    def _join(self, tries: tuple[Try, ...]) -> Iterable[Logical]:
        after: dict[Try, Try] = {}  # the next attempt of each attempt
        in_order = sorted(tries, key=lambda one: one.start_ns)
        for one in in_order:
            if (before := _find_counted_predecessor(one, in_order)) is not None:
                after.setdefault(before, one)
        for one in sorted(tries, key=lambda one: (one.end_ns, one.start_ns)):
            if one.failed_retryably and one not in after:
                later = [
                    other
                    for other in in_order
                    if other.start_ns > one.start_ns
                    and 0 <= other.start_ns - one.end_ns <= self.max_retry_gap_ns
                    and other not in after.values()
                    and _request_key(other) == _request_key(one)
                ]
                if later:
                    after[one] = later[0]
        followers = set(after.values())
        for one in in_order:
            if one not in followers:
                chain = [one]
                while chain[-1] in after:
                    chain.append(after[chain[-1]])
                yield Logical(tuple(chain), tuple(attempt for each in chain for attempt in each.each))


def _count(one: Try) -> int:
    """Return the number of earlier attempts that an attempt reports (T1)."""
    for name in ("http.request.resend_count", "previous-rpc-attempts"):
        count = None if one.exit is None else as_number(read(one.exit.attributes, name))
        if count is not None:
            return int(count)
    if one.asynchronous and one.server is not None:
        deliveries = as_number(read(one.server.attributes, "messaging.message.delivery_count"))
        return 0 if deliveries is None else int(deliveries) - 1
    return 0


def _find_counted_predecessor(one: Try, in_order: list[Try]) -> Try | None:
    """Return the attempt with the preceding count: the last that failed or was still running, else the last."""
    earlier = [
        other
        for other in in_order
        if other.start_ns < one.start_ns
        and _count(other) == _count(one) - 1
        and _call_key(other) == _call_key(one)
        and not other.is_redirect
    ]
    likely = [other for other in earlier if other.failed_retryably or other.end_ns > one.start_ns]
    return next(reversed(likely or earlier), None)


def _method(one: Try) -> str | None:
    attributes = {} if one.exit is None else one.exit.attributes
    return as_text(read(attributes, "http.request.method")) or as_text(read(attributes, "rpc.method"))


def _call_key(one: Try) -> tuple[object, ...]:
    parent_id = one.below or one.primary_span.parent_id
    return (one.trace_id, parent_id, _method(one), one.caller, one.callee, one.asynchronous)


def _request_key(one: Try) -> tuple[object, ...]:
    return (*_call_key(one), one.entry, *_target(one))


def _target(one: Try) -> tuple[str | None, ...]:
    """Return the protocol and the requested resource, as the caller reports them."""

    def get(name: str) -> str | None:
        return as_text(read(one.primary_span.attributes, name))

    name = one.primary_span.name
    if get("db.system.name"):
        return "db", get("db.system.name"), get("db.namespace"), get("db.query.text") or name
    if get("messaging.system"):
        destination = get("messaging.destination.name"), get("messaging.message.id")
        return "messaging", get("messaging.system"), *destination, name
    if get("rpc.system.name") or get("rpc.service") or get("rpc.method"):
        return "rpc", get("rpc.service"), get("rpc.method")
    if get("url.full"):
        return "http", get("http.request.method"), get("url.full")
    is_http = get("http.request.method") or get("http.response.status_code")
    return "http" if is_http else "", name, get("service.peer.name") or get("server.address"), get("server.port")
