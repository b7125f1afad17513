"""The critical path: what the root's time was spent on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spanproof.tests.reference.conditions import NotCovered
from spanproof.tests.reference.spans import Span

if TYPE_CHECKING:
    from spanproof.tests.reference.selections import World


def critical_ns(service: str, trace_id: str, world: World) -> int | None:
    """Return the share of a service, None where it takes no part in the trace, or the trace has no root."""
    shares = shares_ns(trace_id, world)
    took_part = {_owner(span, world) for span in world.forest.spans if span.trace_id == trace_id}
    return shares[service] if shares is not None and service in took_part else None


def shares_ns(trace_id: str, world: World) -> Counter[str] | None:
    """Return the share of every service."""
    root = world.forest.root(trace_id)
    if len(world.forest.roots(trace_id)) > 1:
        raise NotCovered("the critical path of several roots")
    if root is None:
        return None
    shares: Counter[str] = Counter()
    _walk_back(root, root.end_ns, world, shares, {root})
    return shares


def _owner(span: Span, world: World) -> str:
    """Return whose time a span is: that of an unanswered call is its peer's."""
    unanswered = [one for one in world.calls.tries if one.exit is span and one.server is None]
    return unanswered[0].callee if unanswered else span.service


def _walk_back(span: Span, until_ns: int, world: World, shares: Counter[str], seen: set[Span]) -> None:
    """Share out the time from the start of `span` up to `until_ns`."""
    owner = _owner(span, world)
    start_ns = span.start_ns
    while True:
        waited_for = [
            child
            for child in world.forest.children(span)
            if child not in seen and child.end_ns <= until_ns and child.end_ns > start_ns
        ]
        if not waited_for:
            break
        last = max(waited_for, key=lambda child: child.end_ns)
        seen.add(last)
        shares[owner] += until_ns - last.end_ns
        _walk_back(last, last.end_ns, world, shares, seen)
        until_ns = last.start_ns
    shares[owner] += until_ns - start_ns
