"""``before`` and ``budget``: the order of spans, and the use of time."""

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
    """Judge ``A before B within D`` in each trace: the last A ends before the first B starts, at most D before."""
    outcomes = [_before(node, world.only(trace)) for trace in world.settled]
    for outcome in ("fail", "open"):
        if outcome in outcomes:
            return outcome  # type: ignore[return-value]
    if "pass" not in outcomes:
        return "nothing"
    return "pass" if world.all_settled else "open"


def _before(node: s.Before, world: World) -> Outcome:
    first, second = select(node.first, world), select(node.second, world)
    decided = world.all_settled or (is_selection_stable(node.first) and is_selection_stable(node.second))
    if not first or not second:
        return "nothing"
    last, next_item = max(first, key=lambda item: item.end_ns), min(second, key=lambda item: item.start_ns)
    gap_ns = next_item.start_ns - last.end_ns
    last_span, next_span = _span(last), _span(next_item)
    descends = last_span in world.forest.above(next_span) or next_span in world.forest.above(last_span)
    if not _in_one_process(last_span, next_span) and abs(gap_ns) <= world.rules.max_clock_skew_ns and not descends:
        is_ordered = _ordered_by_cause(last_span, next_span, world)
        if is_ordered is None:
            return "open"
        if not is_ordered:
            return "fail" if decided else "open"
    elif gap_ns < 0:
        return "fail" if decided else "open"
    if node.limit is not None:
        late_ns = gap_ns - _number(node.limit)
        if not _in_one_process(last_span, next_span) and abs(late_ns) <= world.rules.max_clock_skew_ns:
            return "open"
        if late_ns > 0:  # spans that arrive later may shorten the gap, and so may ends that are unknown
            is_certain = world.all_settled and not any(_span(item).unfinished for item in first)
            return "fail" if is_certain else "open"
    return "pass" if world.all_settled else "open"


def _span(item: Span | Logical | Try) -> Span:
    if isinstance(item, Span):
        return item
    return (item.last if isinstance(item, Logical) else item).primary_span


def _in_one_process(first: Span, second: Span) -> bool:
    return (first.service, first.resource) == (second.service, second.resource)


def _ordered_by_cause(first: Span, second: Span, world: World) -> bool | None:
    """Return whether `first` comes first, by their ancestors in one process; None if these give no or both orders."""
    orders = set()
    for above_first in _list_waiting_spans(first, world):
        for above_second in _list_waiting_spans(second, world):
            if above_first is above_second or not _in_one_process(above_first, above_second):
                continue
            if above_first.end_ns <= above_second.start_ns:
                orders.add(True)
            if above_second.end_ns <= above_first.start_ns:
                orders.add(False)
    return orders.pop() if len(orders) == 1 else None


def _list_waiting_spans(span: Span, world: World) -> Iterator[Span]:
    """Yield a span and the ancestors that waited for it.

    An ancestor does not wait for a message, nor for a span of its process that ends later.
    """
    yield span
    for parent in world.forest.above(span):
        if world.forest.kind(span) == CONSUMER or (_in_one_process(span, parent) and span.end_ns > parent.end_ns):
            return
        yield parent
        span = parent


def judge_budget(node: s.Budget, world: World) -> Outcome:
    """Judge ``budget``: the duration of the root, and the share of each service."""
    parts = {word(name): _number(value) for name, value in node.parts}
    oks = []
    for trace in world.settled:
        shares = shares_ns(trace, world)
        if shares is None:
            continue
        if any(root.duration_ns > _number(node.total) for root in world.forest.roots(trace)):
            return "fail"  # the duration of a root does not change
        within = all(ns <= parts.get(service, parts.get(None, ns)) for service, ns in shares.items())
        oks.append((trace, within))
    return all_hold(oks, world, stable=False)


def _number(node: s.Expression) -> Fraction:
    value = value_of(node, None)
    number = None if value is None else convert(value, "number")
    assert number is not None
    return number
