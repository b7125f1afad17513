"""Selections: the spans and calls that a claim concerns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Calls, Logical, Reading, Try, list_open_readings
from spanproof.tests.reference.conditions import CallRow, SpanRow, convert, holds, is_stable, value_of
from spanproof.tests.reference.spans import ENDLESS_NS, Forest, Span, as_text, guess_ends

DEFAULTS: Final = ServiceRules()
CERTAIN: Final = Reading()


GroupKey: TypeAlias = "tuple[str | None, ...]"  # the texts of the fields


class Group(Struct, frozen=True):
    """One group of ``by FIELD, …``."""

    by: tuple[s.Name, ...]
    key: GroupKey


class World(Struct, frozen=True):
    """All spans and calls, and the traces to judge with whether each is settled."""

    forest: Forest
    calls: Calls
    settled: dict[str, bool]
    rules: ServiceRules
    baseline: dict[str, bool] = field(default_factory=dict)
    group: Group | None = None
    given: tuple[Span, ...] = ()
    _readings: dict[int, tuple[World, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        spans: Iterable[Span],
        settled: dict[str, bool],
        baseline: dict[str, bool] | None = None,
        rules: ServiceRules = DEFAULTS,
        reading: Reading = CERTAIN,
        unfinished_ns: int = 0,
    ) -> World:
        given = tuple(spans)
        forest = Forest(guess_ends(given, unfinished_ns), rules.proxies, rules.edges)
        return cls(forest, Calls(forest, rules, reading), settled, rules, baseline or {}, given=given)

    def readings(self, durations: Iterable[int] = ()) -> Iterator[World]:
        """Yield the world as it is for each reading of what is uncertain, this one first.

        Unfinished spans end at once, never, or after one of the `durations`.
        """
        lengths = (0, ENDLESS_NS, *durations) if any(span.unfinished for span in self.given) else (0,)
        for length in lengths:
            if length not in self._readings:
                self._readings[length] = tuple(self._list_readings(length))
            yield from self._readings[length]

    def _list_readings(self, unfinished_ns: int) -> Iterator[World]:
        first = self if not unfinished_ns else self._read(CERTAIN, unfinished_ns)
        yield first
        for reading in list_open_readings(first.calls.uncertain):
            if reading != first.calls.reading:
                yield self._read(reading, unfinished_ns)

    def _read(self, reading: Reading, unfinished_ns: int) -> World:
        return World.of(self.given, self.settled, self.baseline, self.rules, reading, unfinished_ns)

    def in_baseline(self) -> World:
        """Return the world with the baseline traces to judge."""
        return replace(self, settled=self.baseline)

    def is_grouped(self, item: Span | Logical | Try) -> bool:
        """Return whether a span or call belongs to the group to judge."""
        return self.group is None or self.group_of(item, self.group.by) == self.group.key

    def group_of(self, item: Span | Logical | Try, by: tuple[s.Name, ...]) -> GroupKey:
        values = (value_of(field, self.row(item)) for field in by)
        return tuple(None if value is None else as_text(convert(value, value.kind)) for value in values)

    def only(self, trace_id: str) -> World:
        """Return the world with one trace to judge."""
        return replace(self, settled={trace_id: self.settled[trace_id]})

    @property
    def all_settled(self) -> bool:
        return all(self.settled.values())

    def row(self, item: Span | Logical | Try) -> SpanRow | CallRow:
        if isinstance(item, Span):
            return SpanRow(item, self.forest)
        if isinstance(item, Logical):
            return CallRow(item, self.calls, item.attempts, item.attempts)
        logical = self.calls.of[item]
        return CallRow(item, self.calls, logical.numbers[logical.each.index(item)], logical.attempts)

    def spans(self) -> Iterator[Span]:
        """Yield the spans of the traces to judge."""
        return (span for span in self.forest.spans if span.trace_id in self.settled)

    def logical(self) -> Iterator[Logical]:
        return (call for call in self.calls.logical if call.last.trace_id in self.settled)

    def tries(self) -> Iterator[Try]:
        return (attempt for attempt in self.calls.tries if attempt.trace_id in self.settled)


def word(node: s.Name | s.Text | None) -> str | None:
    """Return the name of a service; None for any."""
    return None if node is None else node.text if isinstance(node, s.Name) else node.plain


def matches(pattern: s.Text | None, text: str) -> bool:
    """Return whether the name of an operation matches; ``*`` matches any text."""
    if pattern is None:
        return True
    return bool(re.fullmatch(".*".join(re.escape(part) for part in pattern.plain.split("*")), text, re.DOTALL))


def fits_service(target: s.SpanSelection, service: str) -> bool:
    return target.service is None or word(target.service) == service


def fits(target: s.SpanSelection, span: Span, world: World) -> bool:
    """Return whether a target selects this span."""
    return (
        (target.spans == "any" or world.forest.serves(span))
        and fits_service(target, span.service)
        and matches(target.operation, span.name)
        and (target.where is None or holds(target.where, world.row(span)))  # type: ignore[arg-type]
    )


def fits_call(selection: s.CallSelection, call: Logical | Try, world: World) -> bool:
    """Return whether a selection selects this call."""
    attempt = call.last if isinstance(call, Logical) else call
    first = world.calls.of[attempt].first
    caller, callee = selection.caller, selection.callee
    if not fits_service(caller, first.caller):
        return False
    if (caller.operation is not None or caller.where is not None) and (
        first.entry is None or not fits(caller, first.entry, world)
    ):
        return False
    return (
        attempt.asynchronous == (selection.arrow == "~>")
        and fits_service(callee, attempt.callee)
        and matches(callee.operation, attempt.operation)
        and (callee.where is None or holds(callee.where, world.row(call)))
    )


def select(selection: s.Selection, world: World) -> list[Span] | list[Logical] | list[Try]:
    """Return the selected spans or calls of the traces to judge."""
    if selection.pick is not None:
        return _pick(select(replace(selection, pick=None), replace(world, group=None)), selection.pick, world)
    if isinstance(selection, s.SpanSelection):
        return [span for span in world.spans() if fits(selection, span, world) and world.is_grouped(span)]
    if selection.attempts:
        tries = (attempt for call in world.logical() for attempt in call.each)
        return [attempt for attempt in tries if fits_call(selection, attempt, world) and world.is_grouped(attempt)]
    return [call for call in world.logical() if fits_call(selection, call, world) and world.is_grouped(call)]


def _pick(items: Any, pick: s.Pick, world: World) -> Any:
    """Return the items that start first, or last, in each trace."""
    starts: dict[str, int] = {}
    choose = min if pick == "first" else max
    for item in items:
        trace = world.row(item).trace_id
        starts[trace] = choose(starts.get(trace, item.start_ns), item.start_ns)
    picked = [item for item in items if item.start_ns == starts[world.row(item).trace_id]]
    return [item for item in picked if world.is_grouped(item)]


def is_selection_stable(selection: s.Selection) -> bool:
    """Return whether selected items stay selected when more spans arrive."""
    if selection.pick is not None:
        return False
    if isinstance(selection, s.SpanSelection):
        return is_stable(selection.where)
    if selection.attempts:
        return is_stable(selection.caller.where) and is_stable(selection.callee.where)
    return selection.caller.where is None and selection.callee.where is None


def count_calls(selection: s.CallSelection, world: World) -> list[tuple[str, int]]:
    """Return the number of calls that each request of the caller made, with its trace."""
    made = Counter(id(call.last.entry) for call in select(selection, world) if isinstance(call, Logical))
    return [(world.row(request).trace_id, made[id(request)]) for request in select(selection.caller, world)]
