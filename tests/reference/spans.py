"""Spans, and where each stands among the others: its parent, its entry span, its children."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, TypeAlias

from spanproof.collector.otlp.semantic_conventions import DEPRECATED_NAMES

Value: TypeAlias = "str | int | float | bool | list[Value]"

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
PRODUCER: Final = 4
CONSUMER: Final = 5
ARRIVALS: Final = (SERVER, CONSUMER)
EXITS: Final = (CLIENT, PRODUCER)
ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened within a span."""

    name: str
    at_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A reference to a span, here or elsewhere."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A span as in OTLP; each is equal to itself alone."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int = 0
    attributes: dict[str, Value] = field(default_factory=dict)
    resource: dict[str, Value] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def is_rpc_attempt(self) -> bool:
        """Tell an attempt as gRPC's own instrumentation records it, of no certain kind."""
        return self.name.startswith("Attempt.") and "previous-rpc-attempts" in self.attributes

    @property
    def is_exit(self) -> bool:
        return self.kind in EXITS or self.is_rpc_attempt

    @property
    def http_status(self) -> Fraction | None:
        return as_number(read(self.attributes, "http.response.status_code"))

    @property
    def error(self) -> bool:
        return is_error(self.status, self.http_status, read(self.attributes, "rpc.response.status_code"))


def read(attributes: dict[str, Value], name: str) -> Value | None:
    """Read an attribute under its stable name, else under a deprecated one."""
    for spelling in (name, *DEPRECATED_NAMES.get(name, ())):
        if spelling in attributes:
            return attributes[spelling]
    return None


def as_text(value: Value | None) -> str | None:
    """Return a scalar as a text."""
    if value is None or isinstance(value, list):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def as_number(value: Value | None) -> Fraction | None:
    """Return a scalar as a number, where it is one or reads as one."""
    text = as_text(value)
    try:
        return None if text is None or "/" in text else Fraction(text)
    except ValueError:
        return None


def is_error(status: int, http_status: Fraction | None, rpc_status: Value | None) -> bool:
    """Tell an error: status ERROR, or HTTP status ≥ 500, or a non-OK RPC status."""
    if status == ERROR or (http_status is not None and http_status >= 500):
        return True
    return rpc_status is not None and as_text(rpc_status) not in ("0", "OK")


class Forest:
    """All spans there are. Of duplicates the one that ends last is kept."""

    def __init__(self, spans: Iterable[Span], proxies: Iterable[str] = ()) -> None:
        self.proxies = frozenset(proxies)
        kept: dict[tuple[str, str, int, str], Span] = {}
        for span in spans:
            key = (span.trace_id, span.span_id, span.kind, span.service)
            if key not in kept or kept[key].end_ns < span.end_ns:
                kept[key] = span
        self.spans = tuple(kept.values())
        self.by_id: dict[tuple[str, str], list[Span]] = defaultdict(list)
        for span in self.spans:
            self.by_id[span.trace_id, span.span_id].append(span)
        self._parents = {span: self._find_parent(span) for span in self.spans}
        for span in [span for span in self.spans if self._leads_round(span)]:
            self._parents[span] = None
        self._parents |= {span: self._past_proxies(span) for span in self.spans if span.service not in self.proxies}
        self._children: dict[Span, list[Span]] = defaultdict(list)
        for span, parent in self._parents.items():
            if parent is not None:
                self._children[parent].append(span)

    def parent(self, span: Span) -> Span | None:
        """Return the parent, None where there is none or it is missing."""
        return self._parents[span]

    def _find_parent(self, span: Span) -> Span | None:
        """Find the parent; client and server may share one span id.

        The server of such a pair is below its client. Of such a pair, a span is below the one of its own service,
        else below the server.
        """
        if span.kind in ARRIVALS:
            for other in self.by_id[span.trace_id, span.span_id]:
                if other.is_exit and other is not span:
                    return other
        if span.parent_id is None:
            return None
        named = [other for other in self.by_id[span.trace_id, span.parent_id] if other is not span]
        if not named:
            return None  # it is missing, or the span names itself
        return min(named, key=lambda other: (other.service != span.service, other.kind not in ARRIVALS))

    def _past_proxies(self, span: Span) -> Span | None:
        """Return the parent; what came through a sidecar comes from whoever asked the sidecar."""
        parent = self._parents[span]
        while parent is not None and parent.service in self.proxies:
            parent = self._parents[parent]
        return parent

    def _leads_round(self, span: Span) -> bool:
        """Tell whether the way up ends in a circle; then nobody can say what stands above what."""
        seen = {span}
        here: Span | None = span
        while (here := self._parents[here]) is not None:
            if here in seen:
                return True
            seen.add(here)
        return False

    def children(self, span: Span) -> list[Span]:
        return self._children[span]

    def above(self, span: Span) -> Iterator[Span]:
        """Go up through the parents."""
        while (parent := self.parent(span)) is not None:
            yield parent
            span = parent

    def is_root(self, span: Span) -> bool:
        return span.parent_id is None and self.parent(span) is None

    def is_entry(self, span: Span) -> bool:
        """Tell a request that a service served."""
        parent = self.parent(span)
        if parent is None:
            return span.parent_id is None or span.kind in ARRIVALS
        if parent.service != span.service:
            return True
        if span.kind not in ARRIVALS:
            return False
        for other in self.above(span):
            if other.service != span.service or other.is_exit:
                return True
            if other.kind in ARRIVALS:
                return False
        return True

    def entry(self, span: Span) -> Span | None:
        """Return the request that `span` is part of: itself, or the nearest entry span above it in its service."""
        if self.is_entry(span):
            return span
        for other in self.above(span):
            if other.service != span.service:
                return None
            if self.is_entry(other):
                return other
        return None

    def depth(self, span: Span) -> int:
        return sum(1 for _ in self.above(span))

    def self_time_ns(self, span: Span) -> int:
        """Return the duration less the union of the children's intervals, clipped to the span."""
        covered = 0
        reached = span.start_ns
        for child in sorted(self.children(span), key=lambda child: child.start_ns):
            start, end = max(child.start_ns, reached), min(child.end_ns, span.end_ns)
            if end > start:
                covered += end - start
                reached = end
        return span.duration_ns - covered

    def roots(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id and self.is_root(span)]
