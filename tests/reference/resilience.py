"""Retries, fallbacks, timeouts: behaviour after a failed call."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Logical, Try
from spanproof.tests.reference.conditions import ORDERS, NotCovered, convert, holds, value_of
from spanproof.tests.reference.numbers import Outcome, all_hold
from spanproof.tests.reference.selections import World, fits, fits_service, is_selection_stable, matches, select


def judge_retry(node: s.Retry, world: World) -> Outcome:
    """Judge ``retry``: calls whose first attempt failed retryably were retried, and satisfy the clauses."""
    calls = [call for call in _calls(node.call, world) if _first_failed(call)]
    visible_calls = [call for call in calls if call.attempts > 1 or not _is_hidden(call, world)]
    oks = [
        (call.last.trace_id, call.attempts > 1 and all(_satisfies(clause, call, world) for clause in node.clauses))
        for call in visible_calls
    ]
    outcome = all_hold(oks, world, stable=False)
    return "open" if len(visible_calls) < len(calls) and outcome != "fail" else outcome


def _is_hidden(call: Logical, world: World) -> bool:
    """Return whether only the silent callee could show retries of this call, as it does for other calls."""
    return call.last.server is None and any(
        (other.last.caller, other.last.callee) == (call.last.caller, call.last.callee)
        and any(attempt.retried_callee_spans for attempt in other.tries)
        for other in world.calls.logical
    )


def judge_no_retry(node: s.NoRetry, world: World) -> Outcome:
    """Judge ``no retry``: a retried call stays retried; it stays selected if the selection has no conditions."""
    oks = [(call.last.trace_id, call.attempts == 1) for call in _calls(node.call, world)]
    return all_hold(oks, world, stable=is_selection_stable(node.call))


def judge_fallback(node: s.Fallback, world: World) -> Outcome:
    """Judge ``fallback``: after each failed call, the caller called another service and did not fail."""
    failed = [call for call in _calls(node.call, world) if call.last.failed]
    oks = [(call.last.trace_id, _fell_back(call, node.to, world)) for call in failed]
    return all_hold(oks, world, stable=False)


def judge_timeout(node: s.Timeout, world: World) -> Outcome:
    """Judge ``timeout``: no attempt lasted longer than the limit, and at least one was cut off."""
    tries = [attempt for call in _calls(node.call, world) for attempt in call.each]
    limit_ns = _number(node.limit)
    if any(attempt.duration_ns > limit_ns for attempt in tries):
        return "fail"
    if not any(_was_cut_off(attempt) for attempt in tries):
        return "nothing"
    return "pass" if world.all_settled else "open"


def _was_cut_off(attempt: Try) -> bool:
    """Return whether an attempt was cut off: by its error type or status, or because its callee continued."""
    if attempt.exit is None:
        return False
    error_type = f"{attempt.exit.attributes.get('error.type', '')}".lower()
    if re.search(r"time.?out|timed.?out|deadline|cancel", error_type):
        return True
    if f"{attempt.exit.attributes.get('rpc.grpc.status_code', '')}" in ("1", "4"):
        return True
    return attempt.failed and attempt.server is not None and attempt.server.duration_ns > attempt.exit.duration_ns


def _calls(selection: s.Selection, world: World) -> list[Logical]:
    return select(selection, world)  # type: ignore[return-value]  # checked: whole calls


def _first_failed(call: Logical) -> bool:
    return call.each[0].failed_retryably


def _satisfies(clause: s.Clause, call: Logical, world: World) -> bool:
    attempts = call.each
    gaps = [later.start_ns - earlier.end_ns for earlier, later in itertools.pairwise(attempts)]
    match clause:
        case s.Limit(name="attempts"):
            return ORDERS[clause.operator](call.attempts, _number(clause.value))
        case s.Limit(name="backoff"):
            return all(ORDERS[clause.operator](gap, _number(clause.value)) for gap in gaps)
        case s.Flag(name="backoff grows"):
            return all(attempt < next_ for attempt, next_ in itertools.pairwise(gaps))
        case s.Flag(name="recovered"):
            return not call.last.failed
        case s.Flag(name="exhausted"):
            return call.last.failed
        case s.Cause():
            rows = (world.row(attempt) for attempt in attempts if attempt.failed)
            return all(holds(clause.condition, row) for row in rows)
        case _:
            raise NotCovered(type(clause).__name__)


def _number(node: s.Expression) -> Fraction:
    value = value_of(node, None)
    number = None if value is None else convert(value, "number")
    assert number is not None
    return number


def _fell_back(call: Logical, to: s.SpanSelection, world: World) -> bool:
    entry = call.last.entry
    if entry is None or entry.error:
        return False
    if to.spans == "any":
        return any(
            span.start_ns >= call.end_ns and world.forest.entry(span) is entry and fits(to, span, world)
            for span in world.forest.spans
        )
    return any(
        attempt.start_ns >= call.end_ns
        and attempt.entry is entry
        and attempt not in call.tries
        and _calls_target(attempt, to, world)
        for attempt in world.calls.tries
    )


def _calls_target(attempt: Try, to: s.SpanSelection, world: World) -> bool:
    span = attempt.server or attempt.primary_span
    return (
        fits_service(to, attempt.callee)
        and matches(to.operation, attempt.operation)
        and (to.where is None or holds(to.where, world.row(span)))
    )
