"""Retries, fallbacks, timeouts: what happened after a call had failed."""

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
    """Judge ``retry``: what failed retryably at first was tried again, as the clauses say."""
    calls = [call for call in _calls(node.call, world) if _first_failed(call)]
    told = [call for call in calls if call.attempts > 1 or not _is_hidden(call, world)]
    oks = [
        (call.last.trace_id, call.attempts > 1 and all(_satisfies(clause, call, world) for clause in node.clauses))
        for call in told
    ]
    outcome = all_hold(oks, world, stable=False)
    return "open" if len(told) < len(calls) and outcome != "fail" else outcome


def _is_hidden(call: Logical, world: World) -> bool:
    """Tell whether tries of this call could be seen at its callee alone, as others' were, and it is silent."""
    return call.last.server is None and any(
        (other.last.caller, other.last.callee) == (call.last.caller, call.last.callee)
        and any(one.retried_arrivals for one in other.tries)
        for other in world.calls.logical
    )


def judge_no_retry(node: s.NoRetry, world: World) -> Outcome:
    """Judge ``no retry``: what was tried twice stays so, and stays selected if nothing is asked of it."""
    oks = [(call.last.trace_id, call.attempts == 1) for call in _calls(node.call, world)]
    return all_hold(oks, world, stable=is_selection_stable(node.call))


def judge_fallback(node: s.Fallback, world: World) -> Outcome:
    """Judge ``fallback``: where the call failed for good, the caller turned to another, and did not fail."""
    failed = [call for call in _calls(node.call, world) if call.last.failed]
    oks = [(call.last.trace_id, _fell_back(call, node.to, world)) for call in failed]
    return all_hold(oks, world, stable=False)


def judge_timeout(node: s.Timeout, world: World) -> Outcome:
    """Judge ``timeout``: no try lasted longer, and at least one was cut off."""
    tries = [one for call in _calls(node.call, world) for one in call.each]
    limit_ns = _number(node.limit)
    if any(one.duration_ns > limit_ns for one in tries):
        return "fail"
    if not any(_cut_off(one) for one in tries):
        return "nothing"
    return "pass" if world.all_settled else "open"


def _cut_off(one: Try) -> bool:
    """An error that is called a timeout or the like, or a failure whose callee ran on."""
    if one.exit is None:
        return False
    said = f"{one.exit.attributes.get('error.type', '')}".lower()
    if re.search(r"time.?out|timed.?out|deadline|cancel", said):
        return True
    if f"{one.exit.attributes.get('rpc.grpc.status_code', '')}" in ("1", "4"):
        return True
    return one.failed and one.server is not None and one.server.duration_ns > one.exit.duration_ns


def _calls(selection: s.Selection, world: World) -> list[Logical]:
    return select(selection, world)  # type: ignore[return-value]  # checked: whole calls


def _first_failed(call: Logical) -> bool:
    return call.each[0].failed_retryably


def _satisfies(clause: s.Clause, call: Logical, world: World) -> bool:
    attempts = call.each
    gaps = [after.start_ns - before.end_ns for before, after in itertools.pairwise(attempts)]
    match clause:
        case s.Limit(name="attempts"):
            return ORDERS[clause.operator](call.attempts, _number(clause.value))
        case s.Limit(name="backoff"):
            return all(ORDERS[clause.operator](gap, _number(clause.value)) for gap in gaps)
        case s.Flag(name="backoff grows"):
            return all(one < next_ for one, next_ in itertools.pairwise(gaps))
        case s.Flag(name="recovered"):
            return not call.last.failed
        case s.Flag(name="exhausted"):
            return call.last.failed
        case s.Cause():
            rows = (world.row(one) for one in attempts if one.failed)
            return all(holds(clause.condition, row) for row in rows)
        case _:
            raise NotCovered(type(clause).__name__)


def _number(node: s.Expression) -> Fraction:
    found = value_of(node, None)
    number = None if found is None else convert(found, "number")
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
        one.start_ns >= call.end_ns and one.entry is entry and one not in call.tries and _asks(one, to, world)
        for one in world.calls.tries
    )


def _asks(one: Try, to: s.SpanSelection, world: World) -> bool:
    span = one.server or one.seen
    return (
        fits_service(to, one.callee)
        and matches(to.operation, one.operation)
        and (to.where is None or holds(to.where, world.row(span)))
    )
