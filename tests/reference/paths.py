"""Paths: calls from entry span to entry span."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from msgspec import Struct

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Try
from spanproof.tests.reference.conditions import holds
from spanproof.tests.reference.numbers import Outcome
from spanproof.tests.reference.selections import World, fits, fits_service, is_selection_stable, matches
from spanproof.tests.reference.spans import Span


class Hop(Struct, frozen=True):
    """One position of a path: an entry span, or an unanswered attempt to call a peer."""

    served: Span | None
    unanswered: Try | None
    callee_span: Span | None = None  # the callee span; a message may be consumed within another request

    @property
    def span(self) -> Span:
        """The witness span of this position."""
        span = self.served or (self.unanswered and self.unanswered.exit)
        assert span is not None
        return span


def judge_path(node: s.Path, world: World) -> Outcome:
    """Judge ``path``, ``no path`` and ``only path``."""
    matching_traces = {
        span.trace_id
        for span in world.spans()
        if _is_step(node.segment.step, Hop(span, None), world)
        and _matches_branches(node.segment, Hop(span, None), world)
    }
    stable = _has_stable_steps(node.segment)
    if node.mode == "no":
        is_certain = any(stable or world.settled[trace] for trace in matching_traces)
        return "fail" if is_certain else "pass" if world.all_settled else "open"
    missing = set(world.settled) - matching_traces
    if any(world.settled[trace] for trace in missing):
        return "fail"
    if node.mode == "only":
        used_attempts = _list_used_attempts(node, world)
        others = {
            attempt.trace_id for attempt in world.tries() if attempt.server is not None and attempt not in used_attempts
        }
        if any(world.settled[trace] for trace in others):
            return "fail"
        return "pass" if world.all_settled else "open"
    return "pass" if not missing and (stable or world.all_settled) else "open"


def _has_stable_steps(segment: s.PathSegment) -> bool:
    """Return whether a span that matches a step still matches it when more spans arrive."""
    return all(is_selection_stable(target) for target in segment.step.targets) and all(
        map(_has_stable_steps, segment.branches)
    )


def find_matches(node: s.Path, world: World) -> Iterator[frozenset[Span]]:
    """Yield the witness spans of each match of the path."""
    for span in world.spans():
        if _is_step(node.segment.step, start := Hop(span, None), world):
            yield from (route | {span} for route in _list_matches(node.segment, start, world))


def _list_matches(segment: s.PathSegment, hop: Hop, world: World) -> Iterator[frozenset[Span]]:
    choices = [
        [
            route | {next_.span}
            for next_ in _find_next_hops(hop, segment, world)
            if _is_step(branch.step, next_, world)
            for route in _list_matches(branch, next_, world)
        ]
        for branch in segment.branches
    ]
    return (frozenset[Span]().union(*chosen) for chosen in itertools.product(*choices))


def _list_used_attempts(node: s.Path, world: World) -> set[Try]:
    """Return the attempts of all matches of the path."""
    used_attempts: set[Try] = set()
    for span in world.spans():
        start = Hop(span, None)
        if _is_step(node.segment.step, start, world) and _matches_branches(node.segment, start, world):
            used_attempts |= _collect_used_attempts(node.segment, start, world)
    return used_attempts


def _is_step(step: s.Step, hop: Hop, world: World) -> bool:
    return any(_is_target(target, hop, world) for target in step.targets)


def _is_target(target: s.SpanSelection, hop: Hop, world: World) -> bool:
    if hop.callee_span is not None:
        return (
            fits_service(target, hop.callee_span.service)
            and matches(target.operation, hop.callee_span.name)
            and (target.where is None or holds(target.where, world.row(hop.served or hop.callee_span)))
        )
    if hop.served is not None:
        return fits(target, hop.served, world)
    attempt = hop.unanswered
    assert attempt is not None
    assert attempt.exit is not None
    return (
        fits_service(target, attempt.callee)
        and matches(target.operation, attempt.exit.name)
        and (target.where is None or holds(target.where, world.row(attempt.exit)))
    )


def _matches_branches(segment: s.PathSegment, hop: Hop, world: World) -> bool:
    """Return whether every branch matches from this entry span."""
    return all(
        any(
            _is_step(branch.step, next_, world) and _matches_branches(branch, next_, world)
            for next_ in _find_next_hops(hop, segment, world)
        )
        for branch in segment.branches
    )


def _find_next_hops(hop: Hop, segment: s.PathSegment, world: World) -> Iterator[Hop]:
    reached: list[Hop] = []
    pending = [hop]
    while pending:
        current = pending.pop()
        for _, next_ in _calls_from(current, asynchronous=segment.arrow == "~>", world=world):
            if next_ not in reached:
                reached.append(next_)
                if segment.arrow == "->>":
                    pending.append(next_)
    yield from reached


def _calls_from(hop: Hop, *, asynchronous: bool, world: World) -> Iterator[tuple[Try, Hop]]:
    if hop.served is None:
        return
    for attempt in world.calls.tries:
        entry = world.calls.of[attempt].first.entry  # a message that is sent again still comes from its first sender
        if entry is hop.served and attempt.asynchronous == asynchronous:
            if attempt.server is None:
                yield attempt, Hop(None, attempt)
            for callee_span in attempt.callee_spans:
                yield attempt, Hop(world.forest.entry(callee_span), None, callee_span)


def _collect_used_attempts(segment: s.PathSegment, hop: Hop, world: World) -> set[Try]:
    """Return the attempts of all matches of the branches from this entry span."""
    used_attempts: set[Try] = set()
    for branch in segment.branches:
        for route, next_ in _find_routes(hop, segment, world, ()):
            if _is_step(branch.step, next_, world) and _matches_branches(branch, next_, world):
                used_attempts |= set(route) | _collect_used_attempts(branch, next_, world)
    return used_attempts


def _find_routes(
    hop: Hop, segment: s.PathSegment, world: World, previous: tuple[Try, ...]
) -> Iterator[tuple[tuple[Try, ...], Hop]]:
    for attempt, next_ in _calls_from(hop, asynchronous=segment.arrow == "~>", world=world):
        if attempt not in previous:
            yield (*previous, attempt), next_
            if segment.arrow == "->>":
                yield from _find_routes(next_, segment, world, (*previous, attempt))
