"""Paths of calls from instance to instance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Try
from spanproof.tests.reference.conditions import holds
from spanproof.tests.reference.numbers import Outcome
from spanproof.tests.reference.selections import World, fits, fits_service, matches
from spanproof.tests.reference.spans import Span


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a path has come to: a request served, or an unanswered call to a peer."""

    served: Span | None
    unanswered: Try | None
    arrival: Span | None = None  # what came first of the request: a message may be taken up within another

    @property
    def span(self) -> Span:
        """The span that shows it."""
        span = self.served or (self.unanswered and self.unanswered.exit)
        assert span is not None
        return span


def judge_path(node: s.Path, world: World) -> Outcome:
    """Judge ``path``, ``no path`` and ``only path``."""
    witnessed = {
        span.trace_id
        for span in world.spans()
        if _is_step(node.segment.step, Stop(span, None), world) and _goes_on(node.segment, Stop(span, None), world)
    }
    if node.mode == "no":
        return "fail" if witnessed else "pass" if world.all_settled else "open"
    missing = set(world.settled) - witnessed
    if any(world.settled[trace] for trace in missing):
        return "fail"
    if node.mode == "only":
        used = _used_by(node, world)
        others = {one.trace_id for one in world.tries() if one.server is not None and one not in used}
        if any(world.settled[trace] for trace in others):
            return "fail"
        return "pass" if world.all_settled else "open"
    return "open" if missing else "pass"


def ways_through(node: s.Path, world: World) -> Iterator[frozenset[Span]]:
    """Yield, for each way to go the path, the spans that it comes by: of requests served, else of their callers."""
    for span in world.spans():
        if _is_step(node.segment.step, start := Stop(span, None), world):
            yield from (way | {span} for way in _spans_on(node.segment, start, world))


def _spans_on(leg: s.PathSegment, stop: Stop, world: World) -> Iterator[frozenset[Span]]:
    choices = [
        [
            way | {next_.span}
            for next_ in _next(stop, leg, world)
            if _is_step(branch.step, next_, world)
            for way in _spans_on(branch, next_, world)
        ]
        for branch in leg.branches
    ]
    return (frozenset[Span]().union(*chosen) for chosen in itertools.product(*choices))


def _used_by(node: s.Path, world: World) -> set[Try]:
    """Return the calls of every way to go the path."""
    used: set[Try] = set()
    for span in world.spans():
        start = Stop(span, None)
        if _is_step(node.segment.step, start, world) and _goes_on(node.segment, start, world):
            used |= _used(node.segment, start, world)
    return used


def _is_step(step: s.Step, stop: Stop, world: World) -> bool:
    return any(_is_target(target, stop, world) for target in step.targets)


def _is_target(target: s.SpanSelection, stop: Stop, world: World) -> bool:
    if stop.arrival is not None:
        return (
            fits_service(target, stop.arrival.service)
            and matches(target.operation, stop.arrival.name)
            and (target.where is None or holds(target.where, world.row(stop.served or stop.arrival)))
        )
    if stop.served is not None:
        return fits(target, stop.served, world)
    one = stop.unanswered
    assert one is not None
    assert one.exit is not None
    return (
        fits_service(target, one.callee)
        and matches(target.operation, one.exit.name)
        and (target.where is None or holds(target.where, world.row(one.exit)))
    )


def _goes_on(leg: s.PathSegment, stop: Stop, world: World) -> bool:
    """Tell whether every branch can be gone from this very instance."""
    return all(
        any(_is_step(branch.step, next_, world) and _goes_on(branch, next_, world) for next_ in _next(stop, leg, world))
        for branch in leg.branches
    )


def _next(stop: Stop, leg: s.PathSegment, world: World) -> Iterator[Stop]:
    reached: list[Stop] = []
    ahead = [stop]
    while ahead:
        here = ahead.pop()
        for _, next_ in _calls_from(here, asynchronous=leg.arrow == "~>", world=world):
            if next_ not in reached:
                reached.append(next_)
                if leg.arrow == "->>":
                    ahead.append(next_)
    yield from reached


def _calls_from(stop: Stop, *, asynchronous: bool, world: World) -> Iterator[tuple[Try, Stop]]:
    if stop.served is None:
        return
    for one in world.calls.tries:
        if one.entry is stop.served and one.asynchronous == asynchronous:
            if one.server is None:
                yield one, Stop(None, one)
            for arrival in one.arrivals:
                yield one, Stop(world.forest.entry(arrival), None, arrival)


def _used(leg: s.PathSegment, stop: Stop, world: World) -> set[Try]:
    """Return the calls of all ways to go the branches from this instance."""
    found: set[Try] = set()
    for branch in leg.branches:
        for way, next_ in _ways(stop, leg, world, ()):
            if _is_step(branch.step, next_, world) and _goes_on(branch, next_, world):
                found |= set(way) | _used(branch, next_, world)
    return found


def _ways(
    stop: Stop, leg: s.PathSegment, world: World, gone: tuple[Try, ...]
) -> Iterator[tuple[tuple[Try, ...], Stop]]:
    for one, next_ in _calls_from(stop, asynchronous=leg.arrow == "~>", world=world):
        if one not in gone:
            yield (*gone, one), next_
            if leg.arrow == "->>":
                yield from _ways(next_, leg, world, (*gone, one))
