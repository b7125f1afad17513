"""The critical path: what the root's time was spent on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spanproof.tests.reference.spans import CLIENT, CONSUMER, Span

if TYPE_CHECKING:
    from spanproof.tests.reference.selections import World


def critical_ns(service: str, trace_id: str, world: World) -> int | None:
    """Return the share of a service, None where it takes no part in the trace, or the trace has no root."""
    shares = shares_ns(trace_id, world)
    took_part = {_owner(span, world) for span in world.forest.spans if span.trace_id == trace_id}
    return shares[service] if shares is not None and service in took_part else None


def shares_ns(trace_id: str, world: World) -> Counter[str] | None:
    """Return the share of every service."""
    roots = world.forest.roots(trace_id)
    shares: Counter[str] = Counter()
    for root in roots:
        _walk_back(root, root.start_ns, root.end_ns, world, shares)
    return shares if roots else None


def _owner(span: Span, world: World) -> str:
    """Return whose time a span is: that of an unanswered call is its peer's."""
    unanswered = [one for one in world.calls.tries if one.exit is span and one.server is None]
    return unanswered[0].callee if unanswered else span.service


def _walk_back(span: Span, start_ns: int, until_ns: int, world: World, shares: Counter[str]) -> None:
    """Share out the time of `span` from `start_ns` up to `until_ns`.

    It waited for a child that ended within it, and for the answer to its call, however that clock goes; for what
    takes up a message nobody waits. Of children that end together, the last to start is the one.
    """
    waited_for = []
    for child in world.forest.children(span):
        answer = span.kind == CLIENT and world.forest.is_entry(child)
        start, end = max(child.start_ns, start_ns), min(child.end_ns, until_ns) if answer else child.end_ns
        if child.kind != CONSUMER and start < end <= until_ns:
            waited_for.append((end, start, child))
    owner = _owner(span, world)
    for end, start, child in sorted(waited_for, key=lambda each: each[:2], reverse=True):
        if end <= until_ns:
            shares[owner] += until_ns - end
            _walk_back(child, start, end, world, shares)
            until_ns = start
    shares[owner] += until_ns - start_ns
