"""What a verdict shows has to be so: the span that it points at is of the kind, and has the value, that it says."""

from __future__ import annotations

import math
import re
from typing import Final

from spanproof.assertions.explain.units import format_duration
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.query_lang.compile.conditions import find_subject
from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Logical, Try
from spanproof.tests.reference.conditions import CallRow, SpanRow, convert, holds, relate, value_of
from spanproof.tests.reference.numbers import Bag, One, evaluate
from spanproof.tests.reference.paths import ways_through
from spanproof.tests.reference.selections import World, select
from spanproof.tests.reference.spans import Span, as_text

# Of which claims a span is shown for itself when they come out so, and whether the condition is to hold for it.
SHOWN: Final = {(s.Every, Outcome.FAIL): False, (s.Some, Outcome.PASS): True, (s.No, Outcome.FAIL): True}
UNITS: Final = {"": 1, "%": 1e-2, "/s": 1, "ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}


def find_fault(expectation: s.Expectation, verdict: Verdict, world: World) -> str | None:
    """Say what is wrong with what a verdict shows; None where it is right, or nothing that this knows of."""
    claim = expectation.claim
    if expectation.share is not None or expectation.confidence is not None:
        return None
    if (
        isinstance(claim, s.ComparisonClaim)
        and expectation.by is None
        and verdict.outcome in (Outcome.PASS, Outcome.FAIL)
    ):
        return _find_other_value(claim.condition, verdict, world)
    if isinstance(claim, s.Every | s.Some | s.No):
        return _find_other_thing(claim, verdict, world)
    if isinstance(claim, s.Path) and (claim.mode, verdict.outcome) in (("some", Outcome.PASS), ("no", Outcome.FAIL)):
        shown = _name_spans(verdict)
        ways = ({(span.trace_id, span.span_id) for span in way} for way in ways_through(claim, world))
        return None if shown in ways else f"{shown} is no way through"
    return None


def _find_other_value(condition: s.Expression, verdict: Verdict, world: World) -> str | None:
    """Compare the number that is shown with that which is compared, or, of many, with those that go as it says."""
    if not isinstance(condition, s.Compare):
        return None
    left = evaluate(condition.left, world, condition.right)
    right = evaluate(condition.right, world, condition.left)
    if isinstance(left, One) and isinstance(right, One):
        values = [left.found]
    else:
        bag, other = (left, right) if isinstance(left, Bag) else (right, left)
        assert isinstance(bag, Bag)
        assert isinstance(other, One)
        limit = other.found
        if limit is None:
            return None
        sides = ((limit, each) if bag is right else (each, limit) for _, each in bag.values)
        holding = [relate(condition.operator, *each) for each in sides]
        wanted = verdict.outcome is Outcome.PASS
        values = [each for (_, each), ok in zip(bag.values, holding, strict=True) if ok is wanted]
    numbers = [number for each in values if each is not None and (number := convert(each, "number")) is not None]
    if verdict.observed is None or len(numbers) < len(values):
        return None
    seen = _read(verdict.observed)
    if seen is None or any(math.isclose(seen, number, rel_tol=1e-5) for number in numbers):
        return None
    return f"{verdict.observed} is none of {[float(number) for number in numbers]}"


def _read(shown: str) -> float | None:
    """Return the number that is shown; of a duration its nanoseconds, of a percentage the fraction."""
    found = re.fullmatch(r"(-?[0-9.]+(?:e[+-]?[0-9]+)?)([^0-9]*)", shown)
    return None if found is None else float(found[1]) * UNITS[found[2]]


def _find_other_thing(claim: s.Every | s.Some | s.No, verdict: Verdict, world: World) -> str | None:
    """Look whether what is shown is selected, the condition holds for it, or does not, and it has the value shown."""
    wanted = SHOWN.get((type(claim), verdict.outcome))
    if wanted is None:
        return None
    shown = _name_spans(verdict)
    rows = [world.row(item) for item in select(claim.selection, world) if not shown.isdisjoint(_ids(item))]
    rows = [row for row in rows if (claim.condition is None or holds(claim.condition, row)) is wanted]
    if not rows:
        return f"{shown or 'nothing'} does not show it"
    looked_at = find_subject(claim.condition) if claim.condition is not None else None
    values = {_show(looked_at, row) for row in rows} if isinstance(looked_at, s.Name) else set()
    if values and None not in values and verdict.observed not in values:
        return f"{verdict.observed} is not {' or '.join(map(str, values))}, which {shown} has"
    return None


def _name_spans(verdict: Verdict) -> set[tuple[str, str]]:
    return {(witness.trace_id, witness.span_id) for witness in verdict.witnesses}


def _ids(item: Span | Logical | Try) -> set[tuple[str, str]]:
    """Return the ids of the spans that may stand for a span or a call."""
    if isinstance(item, Span):
        return {(item.trace_id, item.span_id)}
    one = item.last if isinstance(item, Logical) else item
    return {(span.trace_id, span.span_id) for span in (one.exit, one.server) if span is not None}


def _show(name: s.Name, row: SpanRow | CallRow) -> str | None:
    """Return the value of a field or an attribute as it is to be shown; None where this does not know."""
    kind = row.fields.get(name.text, "any")
    found = value_of(name, row)
    if found is None:
        return "missing"
    if kind == "instant" or isinstance(found.value, list | float):
        return None
    if kind == "duration":
        return format_duration(row.field(name.text))  # type: ignore[arg-type]  # a number of nanoseconds
    return as_text(found.value)  # type: ignore[arg-type]  # of fields, fractions are whole
