"""Check of a verdict's evidence: its witnesses must match the claim and have the observed value."""

from __future__ import annotations

import math
import re
from typing import Final

from spanproof.assertions.explain.units import format_duration
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.query_lang.sql.conditions import find_subject
from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Logical, Try
from spanproof.tests.reference.conditions import CallRow, SpanRow, convert, holds, relate, value_of
from spanproof.tests.reference.numbers import Bag, One, evaluate
from spanproof.tests.reference.paths import find_matches
from spanproof.tests.reference.selections import World, select
from spanproof.tests.reference.spans import Span, as_text

# Claims and outcomes with a witness of their own, and whether the condition holds for the witness.
WITNESS_HOLDS: Final = {(s.Every, Outcome.FAIL): False, (s.Some, Outcome.PASS): True, (s.No, Outcome.FAIL): True}
UNITS: Final = {"": 1, "%": 1e-2, "/s": 1, "ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}


def find_mismatch(expectation: s.Expectation, verdict: Verdict, world: World) -> str | None:
    """Return what is wrong with the evidence of a verdict; None if it is right or not covered."""
    claim = expectation.claim
    if expectation.share is not None or expectation.confidence is not None:
        return None
    if isinstance(claim, s.ComparisonClaim) and not expectation.by and verdict.outcome in (Outcome.PASS, Outcome.FAIL):
        # what nobody saw end may have lasted any time: the value fits one of its readings
        wrong = [_find_wrong_value(claim.condition, verdict, reading) for reading in world.readings()]
        return None if None in wrong else wrong[0]
    if isinstance(claim, s.Every | s.Some | s.No):
        return _find_wrong_witness(claim, verdict, world)
    if isinstance(claim, s.Path) and (claim.mode, verdict.outcome) in (("some", Outcome.PASS), ("no", Outcome.FAIL)):
        witnesses = _list_witness_ids(verdict)
        matches = ({(span.trace_id, span.span_id) for span in match} for match in find_matches(claim, world))
        return None if witnesses in matches else f"{witnesses} does not match the path"
    return None


def _find_wrong_value(condition: s.Expression, verdict: Verdict, world: World) -> str | None:
    """Check that the observed value is the compared number, or one of the values with the verdict's result."""
    if not isinstance(condition, s.Compare):
        return None
    left = evaluate(condition.left, world, condition.right)
    right = evaluate(condition.right, world, condition.left)
    if isinstance(left, Bag) and isinstance(right, Bag):
        return None
    if isinstance(left, One) and isinstance(right, One):
        values = [left.value]
    else:
        bag, other = (left, right) if isinstance(left, Bag) else (right, left)
        assert isinstance(bag, Bag)
        assert isinstance(other, One)
        limit = other.value
        if limit is None:
            return None
        sides = ((limit, each) if bag is right else (each, limit) for _, each in bag.values)
        holding = [relate(condition.operator, *each) for each in sides]
        expected = verdict.outcome is Outcome.PASS
        values = [each for (_, each), ok in zip(bag.values, holding, strict=True) if ok is expected]
    numbers = [number for each in values if each is not None and (number := convert(each, "number")) is not None]
    if verdict.observed is None or len(numbers) < len(values):
        return None
    observed = _read(verdict.observed)
    if observed is None or any(math.isclose(observed, number, rel_tol=1e-5) for number in numbers):
        return None
    return f"{verdict.observed} is not one of {[float(number) for number in numbers]}"


def _read(text: str) -> float | None:
    """Return the number in a text: a duration in nanoseconds, a percentage as a fraction."""
    match = re.fullmatch(r"(-?[0-9.]+(?:e[+-]?[0-9]+)?)([^0-9]*)", text)
    return None if match is None else float(match[1]) * UNITS[match[2]]


def _find_wrong_witness(claim: s.Every | s.Some | s.No, verdict: Verdict, world: World) -> str | None:
    """Check that the witness is selected, that the condition holds or fails for it, and that it has the value."""
    expected = WITNESS_HOLDS.get((type(claim), verdict.outcome))
    if expected is None:
        return None
    witnesses = _list_witness_ids(verdict)
    rows = [world.row(item) for item in select(claim.selection, world) if not witnesses.isdisjoint(_ids(item))]
    rows = [row for row in rows if (claim.condition is None or holds(claim.condition, row)) is expected]
    if not rows:
        return f"{witnesses or 'nothing'} does not support the verdict"
    unfinished = {(span.trace_id, span.span_id) for span in world.given if span.unfinished}
    if verdict.observed is None and not unfinished.isdisjoint(witnesses):
        return None  # nobody saw how long it lasted
    subject = find_subject(claim.condition) if claim.condition is not None else None
    values = {_format_value(subject, row) for row in rows} if isinstance(subject, s.Name) else set()
    if values and None not in values and verdict.observed not in values:
        return f"{verdict.observed} is not {' or '.join(map(str, values))}, which {witnesses} has"
    return None


def _list_witness_ids(verdict: Verdict) -> set[tuple[str, str]]:
    return {(witness.trace_id, witness.span_id) for witness in verdict.witnesses}


def _ids(item: Span | Logical | Try) -> set[tuple[str, str]]:
    """Return the ids of the spans that may be the witness of a span or a call."""
    if isinstance(item, Span):
        return {(item.trace_id, item.span_id)}
    attempt = item.last if isinstance(item, Logical) else item
    return {(span.trace_id, span.span_id) for span in (attempt.exit, attempt.server) if span is not None}


def _format_value(name: s.Name, row: SpanRow | CallRow) -> str | None:
    """Return the displayed value of a field or an attribute; None if this check does not cover it."""
    kind = row.fields.get(name.text, "any")
    value = value_of(name, row)
    if value is None:
        return "missing"
    if kind == "instant" or isinstance(value.value, list | float):
        return None
    if kind == "duration":
        return format_duration(row.field(name.text))  # type: ignore[arg-type]  # a number of nanoseconds
    return as_text(value.value)  # type: ignore[arg-type]  # fractions of fields are whole numbers
