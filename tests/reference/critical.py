"""The critical path: division of the root's duration among services."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spanproof.tests.reference.spans import CONSUMER, PRODUCER, Span

if TYPE_CHECKING:
    from spanproof.tests.reference.selections import World


def critical_ns(service: str, trace_id: str, world: World) -> int | None:
    """Return the share of a service, or None if the trace has no root or does not contain the service."""
    shares = shares_ns(trace_id, world)
    services = {_owner(span, world) for span in world.forest.spans if span.trace_id == trace_id}
    return shares[service] if shares is not None and service in services else None


def shares_ns(trace_id: str, world: World) -> Counter[str] | None:
    """Return the share of every service, or None if the trace has no root."""
    roots = world.forest.roots(trace_id)
    shares: Counter[str] = Counter()
    for root in roots:
        _walk_back(root, root.start_ns, root.end_ns, world, shares)
    return shares if roots else None


def _owner(span: Span, world: World) -> str:
    """Return the service that a span's time belongs to: the peer of an unanswered call, else its own service."""
    unanswered = [attempt for attempt in world.calls.tries if attempt.exit is span and attempt.server is None]
    return unanswered[0].callee if unanswered else span.service


def _walk_back(span: Span, start_ns: int, until_ns: int, world: World, shares: Counter[str]) -> None:
    """Divide the time of `span` from `start_ns` to `until_ns` among services.

    A span waits for children that end within it, and for the answer to its call regardless of clock skew. It does
    not wait for message consumers. Of children that end together, it waits for the one that starts last.
    """
    awaited = []
    skew_ns = world.rules.max_clock_skew_ns
    is_request = world.forest.is_exit(span) and world.forest.kind(span) != PRODUCER
    for child in world.forest.children(span):
        is_answer = is_request and world.forest.serves(child)
        late_ns = child.end_ns - until_ns
        end = min(child.end_ns, until_ns) if is_answer or late_ns <= skew_ns else child.end_ns
        start = max(child.start_ns, start_ns)
        if world.forest.kind(child) != CONSUMER and start < end <= until_ns:
            awaited.append((end, end if is_answer else child.end_ns, start, child))
    owner = _owner(span, world)
    for end, _, start, child in sorted(awaited, key=lambda each: each[:3], reverse=True):
        end = min(end, until_ns) if end - until_ns <= skew_ns and start < until_ns else end
        if end <= until_ns:
            shares[owner] += until_ns - end
            _walk_back(child, start, end, world, shares)
            until_ns = start
    shares[owner] += until_ns - start_ns
