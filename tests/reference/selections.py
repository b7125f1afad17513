"""Selecting: which spans and calls a claim speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Calls, Logical, Try
from spanproof.tests.reference.conditions import CallRow, SpanRow, convert, holds, is_stable, value_of
from spanproof.tests.reference.spans import Forest, Span, as_text

DEFAULTS: Final = ServiceRules()


@dataclass(frozen=True, slots=True)
class Group:
    """One group of ``by FIELD``."""

    by: s.Name
    key: str | None


@dataclass(frozen=True, slots=True)
class World:
    """All that is known, and of it the traces to judge: whether each is settled."""

    forest: Forest
    calls: Calls
    settled: dict[str, bool]
    rules: ServiceRules
    baseline: dict[str, bool] = field(default_factory=dict)
    group: Group | None = None

    @classmethod
    def of(
        cls,
        spans: Iterable[Span],
        settled: dict[str, bool],
        baseline: dict[str, bool] | None = None,
        rules: ServiceRules = DEFAULTS,
    ) -> World:
        forest = Forest(spans, rules.proxies)
        return cls(forest, Calls(forest, rules.max_retry_gap_ns), settled, rules, baseline or {})

    def in_baseline(self) -> World:
        """Return the same with the baseline's traces to judge."""
        return replace(self, settled=self.baseline)

    def is_grouped(self, item: Span | Logical | Try) -> bool:
        """Tell whether a span or call belongs to the group to judge."""
        return self.group is None or self.group_of(item, self.group.by) == self.group.key

    def group_of(self, item: Span | Logical | Try, by: s.Name) -> str | None:
        found = value_of(by, self.row(item))
        return None if found is None else as_text(convert(found, found.kind))

    def only(self, trace_id: str) -> World:
        """Return the same with one trace to judge."""
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
        return CallRow(item, self.calls, logical.each.index(item) + 1, logical.attempts)

    def spans(self) -> Iterator[Span]:
        """Yield the spans of the traces to judge."""
        return (span for span in self.forest.spans if span.trace_id in self.settled)

    def logical(self) -> Iterator[Logical]:
        return (call for call in self.calls.logical if call.last.trace_id in self.settled)

    def tries(self) -> Iterator[Try]:
        return (one for one in self.calls.tries if one.trace_id in self.settled)


def word(node: s.Name | s.Text | None) -> str | None:
    """Return the name of a service, None for any."""
    return None if node is None else node.text if isinstance(node, s.Name) else node.plain


def matches(pattern: s.Text | None, text: str) -> bool:
    """Tell whether the name of an operation fits; ``*`` stands for any text."""
    if pattern is None:
        return True
    return bool(re.fullmatch(".*".join(re.escape(part) for part in pattern.plain.split("*")), text, re.DOTALL))


def fits_service(target: s.SpanSelection, service: str) -> bool:
    return target.service is None or word(target.service) == service


def fits(target: s.SpanSelection, span: Span, world: World) -> bool:
    """Tell whether a target means this span."""
    return (
        (target.spans == "any" or world.forest.is_entry(span))
        and fits_service(target, span.service)
        and matches(target.operation, span.name)
        and (target.where is None or holds(target.where, world.row(span)))  # type: ignore[arg-type]
    )


def fits_call(selection: s.CallSelection, call: Logical | Try, world: World) -> bool:
    """Tell whether a selection means this call."""
    one = call.last if isinstance(call, Logical) else call
    caller, callee = selection.caller, selection.callee
    if not fits_service(caller, one.caller):
        return False
    if (caller.operation is not None or caller.where is not None) and (
        one.entry is None or not fits(caller, one.entry, world)
    ):
        return False
    return (
        one.asynchronous == (selection.arrow == "~>")
        and fits_service(callee, one.callee)
        and matches(callee.operation, one.operation)
        and (callee.where is None or holds(callee.where, world.row(call)))
    )


def select(selection: s.Selection, world: World) -> list[Span] | list[Logical] | list[Try]:
    """Return what a selection means, in the traces to judge."""
    if isinstance(selection, s.SpanSelection):
        return [span for span in world.spans() if fits(selection, span, world) and world.is_grouped(span)]
    if selection.attempts:
        tries = (one for call in world.logical() for one in call.each)
        return [one for one in tries if fits_call(selection, one, world) and world.is_grouped(one)]
    return [call for call in world.logical() if fits_call(selection, call, world) and world.is_grouped(call)]


def is_selection_stable(selection: s.Selection) -> bool:
    """Tell whether what is selected stays selected while spans are still to come."""
    if isinstance(selection, s.SpanSelection):
        return is_stable(selection.where)
    if selection.attempts:
        return is_stable(selection.caller.where) and is_stable(selection.callee.where)
    return selection.caller.where is None and selection.callee.where is None
