"""``before`` and ``budget``: what came first, and what the time was spent on."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Logical, Try
from spanproof.tests.reference.conditions import convert, value_of
from spanproof.tests.reference.critical import shares_ns
from spanproof.tests.reference.numbers import Outcome, all_hold
from spanproof.tests.reference.selections import World, is_selection_stable, select, word
from spanproof.tests.reference.spans import CONSUMER, Span


def judge_before(node: s.Before, world: World) -> Outcome:
    """Judge ``A before B`` in each trace: the last of the first ends before the first of the second starts."""
    found = [_before(node, world.only(trace)) for trace in world.settled]
    for outcome in ("fail", "open"):
        if outcome in found:
            return outcome  # type: ignore[return-value]
    if "pass" not in found:
        return "nothing"
    return "pass" if world.all_settled else "open"


def _before(node: s.Before, world: World) -> Outcome:
    first, second = select(node.first, world), select(node.second, world)
    decided = world.all_settled or (is_selection_stable(node.first) and is_selection_stable(node.second))
    if not first or not second:
        return "nothing"
    last, next_ = max(first, key=lambda item: item.end_ns), min(second, key=lambda item: item.start_ns)
    gap_ns = next_.start_ns - last.end_ns
    one, other = _span(last), _span(next_)
    descends = one in world.forest.above(other) or other in world.forest.above(one)
    if not _in_one_process(one, other) and abs(gap_ns) <= world.rules.max_clock_skew_ns and not descends:
        chain = _ordered_by_cause(one, other, world)
        if chain is None:
            return "open"
        gap_ns = 0 if chain else -1
    if gap_ns < 0:
        return "fail" if decided else "open"
    return "pass" if world.all_settled else "open"


def _span(item: Span | Logical | Try) -> Span:
    if isinstance(item, Span):
        return item
    return (item.last if isinstance(item, Logical) else item).seen


def _in_one_process(one: Span, other: Span) -> bool:
    return (one.service, one.resource) == (other.service, other.resource)


def _ordered_by_cause(one: Span, other: Span, world: World) -> bool | None:
    """Tell which came first by what is above the two in one process; None where that says neither, or both."""
    ways = set()
    for above_one in _waiting_for(one, world):
        for above_other in _waiting_for(other, world):
            if above_one is above_other or not _in_one_process(above_one, above_other):
                continue
            if above_one.end_ns <= above_other.start_ns:
                ways.add(True)
            if above_other.end_ns <= above_one.start_ns:
                ways.add(False)
    return ways.pop() if len(ways) == 1 else None


def _waiting_for(span: Span, world: World) -> Iterator[Span]:
    """Yield a span and those above that waited for it: not for a message, nor for what their process ended later."""
    yield span
    for parent in world.forest.above(span):
        if span.kind == CONSUMER or (_in_one_process(span, parent) and span.end_ns > parent.end_ns):
            return
        yield parent
        span = parent


def judge_budget(node: s.Budget, world: World) -> Outcome:
    """Judge ``budget``: the root's duration, and each service's share of it."""
    parts = {word(name): _number(value) for name, value in node.parts}
    oks = []
    for trace in world.settled:
        shares = shares_ns(trace, world)
        if shares is None:
            continue
        if any(root.duration_ns > _number(node.total) for root in world.forest.roots(trace)):
            return "fail"  # a root stays as long as it is
        within = all(ns <= parts.get(service, parts.get(None, ns)) for service, ns in shares.items())
        oks.append((trace, within))
    return all_hold(oks, world, stable=False)


def _number(node: s.Expression) -> Fraction:
    found = value_of(node, None)
    number = None if found is None else convert(found, "number")
    assert number is not None
    return number
