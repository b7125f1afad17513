"""The critical path: what the root's time was spent on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spanproof.tests.reference.spans import Span

if TYPE_CHECKING:
    from spanproof.tests.reference.selections import World


def critical_ns(service: str, trace_id: str, world: World) -> int | None:
    """Return the share of a service, None where the trace has no root."""
    root = world.forest.root(trace_id)
    if root is None:
        return None
    shares: Counter[str] = Counter()
    _walk_back(root, root.end_ns, world, shares, {root})
    return shares[service]


def shares_ns(trace_id: str, world: World) -> Counter[str] | None:
    """Return the share of every service."""
    root = world.forest.root(trace_id)
    if root is None:
        return None
    shares: Counter[str] = Counter()
    _walk_back(root, root.end_ns, world, shares, {root})
    return shares


def _walk_back(span: Span, until_ns: int, world: World, shares: Counter[str], seen: set[Span]) -> None:
    """Share out the time from the start of `span` up to `until_ns`."""
    unanswered = [one for one in world.calls.tries if one.exit is span and one.server is None]
    owner = unanswered[0].callee if unanswered else span.service
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
        if last.start_ns < start_ns:  # clocks differ: no more than the parent lasted
            inner: Counter[str] = Counter()
            _walk_back(last, last.end_ns, world, inner, seen)
            shares[last.service] += last.end_ns - start_ns
            return
        _walk_back(last, last.end_ns, world, shares, seen)
        until_ns = last.start_ns
    shares[owner] += until_ns - start_ns
