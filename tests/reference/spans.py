"""Spans and their topology: parents, entry spans, children."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.collector.otlp.semantic_conventions import DEPRECATED_NAMES

Value: TypeAlias = "str | int | float | bool | list[Value]"

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
PRODUCER: Final = 4
CONSUMER: Final = 5
ENTRY_KINDS: Final = (SERVER, CONSUMER)
EXIT_KINDS: Final = (CLIENT, PRODUCER)
OK: Final = 1
ERROR: Final = 2
ENDLESS_NS: Final = 10**18
# The RPC statuses that are errors of a served gRPC call.
SERVED_ERRORS: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
RPC_STATUSES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class Event(Struct, frozen=True):
    """An event of a span."""

    name: str
    at_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)


class Link(Struct, frozen=True):
    """A reference to a span of this or another trace."""

    trace_id: str
    span_id: str


class Span(Struct, frozen=True, eq=False):
    """A span as in OTLP, compared by identity. The end of an unfinished span is a guess."""

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
    unfinished: bool = False

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def is_rpc_attempt(self) -> bool:
        """Return whether this is an attempt of gRPC's own instrumentation, which sets no fixed kind."""
        return self.name.startswith("Attempt.")

    @property
    def http_status(self) -> Fraction | None:
        return as_number(read(self.attributes, "http.response.status_code"))

    @property
    def rpc_status(self) -> str | None:
        """The RPC status as a word, if it is known."""
        text = as_text(read(self.attributes, "rpc.response.status_code"))
        return RPC_STATUSES[int(text)] if text is not None and text.isdigit() and int(text) < 17 else text

    @property
    def has_exception(self) -> bool:
        return any(event.name == "exception" for event in self.events)


def read(attributes: dict[str, Value], name: str) -> Value | None:
    """Return an attribute by its stable name, else by a deprecated name."""
    for spelling in (name, *DEPRECATED_NAMES.get(name, ())):
        value = attributes.get(spelling)
        if value is not None and value == value:  # NaN is missing
            return value
    return None


def as_text(value: Value | None) -> str | None:
    """Return a scalar as text."""
    if value is None or isinstance(value, list):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def as_number(value: Value | None) -> Fraction | None:
    """Return a scalar as a number, or None if its text is not a number."""
    text = as_text(value)
    try:
        return None if text is None or "/" in text else Fraction(text)
    except ValueError:
        return None


class Forest:
    """The topology of all spans. Of duplicates, the span that ends last is kept."""

    def __init__(self, spans: Iterable[Span], proxies: Iterable[str] = (), edges: Iterable[str] = ()) -> None:
        self.proxies, self.edges = frozenset(proxies), frozenset(edges)
        self.parts: set[Span] = set()  # client spans for parts of a call
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
        for span in [span for span in self.spans if self._has_cycle(span)]:
            self._parents[span] = None
        self._parents |= {span: self._skip_proxies(span) for span in self.spans if not self.is_proxy(span)}
        self._children: dict[Span, list[Span]] = defaultdict(list)
        for span, parent in self._parents.items():
            if parent is not None:
                self._children[parent].append(span)

    def parent(self, span: Span) -> Span | None:
        """Return the parent, or None if there is none or it is missing."""
        return self._parents[span]

    def _find_parent(self, span: Span) -> Span | None:
        """Return the parent; a client and a server span may share one span id.

        The server span of such a pair is the child of the client span. A child of such a pair is the child of the
        span in its own service, else of the server span.
        """
        if span.kind in ENTRY_KINDS:
            for other in self.by_id[span.trace_id, span.span_id]:
                if (other.kind in EXIT_KINDS or other.is_rpc_attempt) and other is not span:
                    return other
        if span.parent_id is None:
            return None
        named = [other for other in self.by_id[span.trace_id, span.parent_id] if other is not span]
        if not named:
            return None  # the parent is missing, or the span names itself
        return min(named, key=lambda other: (other.service != span.service, other.kind not in ENTRY_KINDS))

    def _skip_proxies(self, span: Span) -> Span | None:
        """Return the nearest parent that is not a sidecar."""
        parent = self._parents[span]
        while parent is not None and self.is_proxy(parent):
            parent = self._parents[parent]
        return parent

    def sidecars_above(self, span: Span) -> Iterator[Span]:
        """Yield the spans of sidecars between a span and its caller, the nearest first."""
        above = self._find_parent(span)
        while above is not None and self.is_proxy(above):
            yield above
            above = self._find_parent(above)

    def _has_cycle(self, span: Span) -> bool:
        """Return whether the ancestors form a cycle."""
        visited = {span}
        ancestor: Span | None = span
        while (ancestor := self._parents[ancestor]) is not None:
            if ancestor in visited:
                return True
            visited.add(ancestor)
        return False

    def kind(self, span: Span) -> int:
        """Return the kind; a span of kind CLIENT that receives, and links to producers, is a consumer.

        What such a span links to is a producer by the semantic conventions, also if that has not arrived.
        """
        if span in self.parts:
            return INTERNAL
        is_receive = as_text(read(span.attributes, "messaging.operation.type")) == "receive"
        return CONSUMER if span.kind == CLIENT and is_receive and span.links else span.kind or INTERNAL

    def is_exit(self, span: Span) -> bool:
        """Return whether a span is an exit span: a request that a service makes."""
        kind = self.kind(span)
        if kind in EXIT_KINDS or span.is_rpc_attempt:
            return True
        return (
            kind == INTERNAL
            and any(child.service != span.service for child in self.children(span))
            and _has_client_attributes(span)
        )

    def error(self, span: Span) -> bool:
        """Return whether a span is in error: by its status, else its RPC status, else its HTTP status."""
        if span.status in (OK, ERROR):
            return span.status == ERROR
        is_exit, rpc_status = self.is_exit(span), span.rpc_status
        if rpc_status is not None:
            is_grpc = "rpc.grpc.status_code" in span.attributes or (
                as_text(read(span.attributes, "rpc.system.name")) == "grpc"
            )
            return rpc_status in SERVED_ERRORS if is_grpc and not is_exit else rpc_status != "OK"
        return span.http_status is not None and span.http_status >= (400 if is_exit else 500)

    def children(self, span: Span) -> list[Span]:
        return self._children[span]

    def above(self, span: Span) -> Iterator[Span]:
        """Yield the ancestors, the nearest first."""
        while (parent := self.parent(span)) is not None:
            yield parent
            span = parent

    def is_root(self, span: Span) -> bool:
        return (span.parent_id is None or span.service in self.edges) and self.parent(span) is None

    def is_proxy(self, span: Span) -> bool:
        """Return whether a span is a sidecar's: named by its service, or by `service[attribute == "value"]`."""
        for text in self.proxies:
            service, _, selector = text.partition("[")
            name, _, value = selector.rstrip("]").partition("==")
            if span.service == service and (
                not selector or as_text(read(span.attributes, name.strip())) == value.strip().strip('"')
            ):
                return True
        return False

    def is_entry(self, span: Span) -> bool:
        """Return whether a span is an entry span: a request that a service receives."""
        parent = self.parent(span)
        if parent is None:
            return span.parent_id is None or self.kind(span) in ENTRY_KINDS
        if parent.service != span.service:
            return True
        if self.kind(span) not in ENTRY_KINDS:
            return False
        for other in self.above(span):
            if other.service != span.service or self.is_exit(other):
                return True
            if self.kind(other) in ENTRY_KINDS:
                return False
        return True

    def serves(self, span: Span) -> bool:
        """Return whether a span is a request that its service serves: an entry span, but not a sidecar's."""
        return self.is_entry(span) and not self.is_proxy(span)

    def entry(self, span: Span) -> Span | None:
        """Return the entry span of a span: itself, or its nearest ancestor that is one in the same service."""
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
        """Return the duration minus the union of the children's intervals, clipped to the span."""
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


def _has_client_attributes(span: Span) -> bool:
    """Return whether a span has the attributes of a client."""

    def has(*names: str) -> bool:
        return any(read(span.attributes, name) is not None for name in names)

    is_http = has("http.request.method") and has("url.full", "server.address")
    return is_http or has("rpc.system.name", "db.system.name", "messaging.system")


def guess_ends(spans: Iterable[Span], duration_ns: int) -> tuple[Span, ...]:
    """Return the spans, with this duration for the unfinished ones."""
    return tuple(replace(span, end_ns=span.start_ns + duration_ns) if span.unfinished else span for span in spans)
