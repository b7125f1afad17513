"""Retries, fallbacks, timeouts: behaviour after a failed call."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from typing import Final

from msgspec.structs import replace

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import WHOLE_MS, Logical, Try
from spanproof.tests.reference.conditions import ORDERS, NotCovered, convert, holds, value_of
from spanproof.tests.reference.numbers import Outcome, all_hold
from spanproof.tests.reference.selections import World, fits, fits_service, is_selection_stable, matches, select
from spanproof.tests.reference.spans import as_text, read

EVIDENCE: Final = {"evidence counted": 1, "evidence arrivals": 2, "evidence inferred": 3}
TIMEOUT: Final = re.compile(r"time.?out|timed.?out|deadline", re.IGNORECASE)
ABORT: Final = re.compile(r"abort|cancel", re.IGNORECASE)


def judge_retry(node: s.Retry, world: World) -> Outcome:
    """Judge ``retry``: calls whose first attempt failed retryably were retried, and satisfy the clauses."""
    calls = [call for call in _calls(node.call, world) if call.first_failed]
    visible_calls = [call for call in calls if call.attempts > 1 or not _is_hidden(call, world)]
    judged = [(call.last.trace_id, _judge_retried(call, node, world)) for call in visible_calls]
    oks = [(trace, ok) for trace, ok in judged if ok is not None]
    outcome = all_hold(oks, world, stable=False)
    return "open" if len(oks) < len(calls) and outcome != "fail" else outcome


def _judge_retried(call: Logical, node: s.Retry, world: World) -> bool | None:
    """Return whether a call was retried as claimed; None if that depends on attempts that left no span."""
    if call.attempts == 1:
        return False
    is_hidden = _is_hidden(call, world)
    results = [_satisfies(clause, call, world) for clause in node.clauses]
    open_clauses = [
        (is_hidden and not _is_settled_by(clause, call, result=result))
        or ((call.attempts > len(call.each) or is_hidden) and _may_differ_unseen(clause, result=result))
        for clause, result in zip(node.clauses, results, strict=True)
    ]
    if not all(result or is_open for result, is_open in zip(results, open_clauses, strict=True)):
        return False
    return None if any(open_clauses) else True


def _may_differ_unseen(clause: s.Clause, *, result: bool) -> bool:
    """Return whether attempts that left no span could turn the result of a clause about all attempts.

    They make gaps shorter, and may have any cause.
    """
    if isinstance(clause, s.Cause):
        return result
    is_lower_bound = isinstance(clause, s.Limit) and clause.operator in (">", ">=")
    return clause.name.startswith("backoff") and (result or not is_lower_bound)


def _is_settled_by(clause: s.Clause, call: Logical, *, result: bool) -> bool:
    """Return whether more attempts than are known leave the result of a clause about their number as it is."""
    if not isinstance(clause, s.Limit) or clause.name != "attempts":
        return True
    if clause.operator in (">", ">=", "<", "<="):
        return result is clause.operator.startswith(">")
    return call.attempts > _number(clause.value)


def _is_hidden(call: Logical, world: World) -> bool:
    """Return whether only the silent callee could show retries of this call, as other calls of this caller do.

    In generated traces, a caller has a single client library.
    """
    return (
        call.last.server is None
        and not call.last.asynchronous
        and call.tier not in (1, 2)
        and any(
            other.last.caller == call.last.caller and any(attempt.retried_callee_spans for attempt in other.tries)
            for other in world.calls.logical
        )
    )


def may_hide_attempts(claim: s.Claim, world: World) -> bool:
    """Return whether a claim about attempts concerns calls whose attempts only the silent callee could show."""
    if isinstance(claim, s.Retry | s.NoRetry):
        return False
    parts = list(s.walk(claim))
    calls = [part for part in parts if isinstance(part, s.CallSelection)]
    reads_attempts = isinstance(claim, s.Timeout) or any(
        (isinstance(part, s.CallSelection) and part.attempts)
        or (isinstance(part, s.Function) and part.name == "attempts")
        or (isinstance(part, s.Name) and part.text in ("attempt", "attempts"))
        for part in parts
    )
    return reads_attempts and any(
        _is_hidden(call, world)
        for selection in calls
        for call in _calls(replace(selection, attempts=False, callee=replace(selection.callee, where=None)), world)
    )


def judge_no_retry(node: s.NoRetry, world: World) -> Outcome:
    """Judge ``no retry``: a retried call stays retried; it stays selected if the selection has no conditions."""
    calls = _calls(node.call, world)
    visible_calls = [call for call in calls if call.attempts > 1 or not _is_hidden(call, world)]
    oks = [(call.last.trace_id, call.attempts == 1) for call in visible_calls]
    outcome = all_hold(oks, world, stable=is_selection_stable(node.call))
    return "open" if len(visible_calls) < len(calls) and outcome != "fail" else outcome


def judge_fallback(node: s.Fallback, world: World) -> Outcome:
    """Judge ``fallback``: after each call that failed for good, the caller called another service in its place."""
    failed = [call for call in _calls(node.call, world) if call.tries[-1].failed_retryably]
    oks = [(call.last.trace_id, _fell_back(call, node.to, world)) for call in failed]
    return all_hold(oks, world, stable=False)


def judge_timeout(node: s.Timeout, world: World) -> Outcome:
    """Judge ``timeout``: no attempt lasted longer than the limit, and at least one was cut off."""
    assert isinstance(node.call, s.CallSelection)
    tries: list[Try] = select(replace(node.call, attempts=True), world)  # type: ignore[assignment]  # `try`
    limit_ns = _number(node.limit)
    if any(attempt.duration_ns > limit_ns for attempt in tries):
        return "fail"
    if not any(_was_cut_off(attempt, world) for attempt in tries):
        return "nothing"
    return "pass" if world.all_settled else "open"


def _was_cut_off(attempt: Try, world: World) -> bool:
    """Return whether A gave the attempt up: by a timeout or an abort, or because its callee ran on."""
    span, server = attempt.exit, attempt.server
    if attempt.cut:
        return True
    if span is None:
        return False
    types = [as_text(read(span.attributes, "error.type")) or ""]
    types += [str(event.attributes.get("exception.type", "")) for event in span.events]
    timed_out = span.rpc_status == "DEADLINE_EXCEEDED" or any(TIMEOUT.search(each) for each in types)
    is_http = read(span.attributes, "http.request.method") is not None
    if is_http:
        if attempt.http_status is not None or attempt.received_status_of_server:
            return False
    elif not timed_out and attempt.attribute("rpc.response.status_code") is not None and span.rpc_status != "CANCELLED":
        return False
    if timed_out:
        return True
    if not is_http and span.http_status is not None:
        return False
    if server is not None and server.duration_ns > span.duration_ns:
        return True
    aborted = span.rpc_status == "CANCELLED" or any(ABORT.search(each) for each in types)
    if not aborted and not (attempt.no_response and not attempt.error and not any(types)):
        return False
    entry = attempt.entry
    cleanup_ns = world.rules.max_clock_skew_ns  # what is cut off with its caller ends a moment before it
    return entry is not None and (
        entry.end_ns > span.end_ns + cleanup_ns or entry.http_status is not None or entry.rpc_status is not None
    )


def _calls(selection: s.Selection, world: World) -> list[Logical]:
    return select(selection, world)  # type: ignore[return-value]  # checked: whole calls


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
            return call.failed_retryably(call.last)
        case s.Flag(name="evidence counted" | "evidence arrivals" | "evidence inferred"):
            return call.tier <= EVIDENCE[clause.name]
        case s.Cause():
            failed = (attempt for attempt in attempts if attempt.failed or call.failed_retryably(attempt))
            return all(holds(clause.condition, world.row(attempt)) for attempt in failed)
        case _:
            raise NotCovered(type(clause).__name__)


def _number(node: s.Expression) -> Fraction:
    value = value_of(node, None)
    number = None if value is None else convert(value, "number")
    assert number is not None
    return number


def _fell_back(call: Logical, to: s.SpanSelection, world: World) -> bool:
    last = call.tries[-1]
    entry = last.entry
    if entry is None or world.forest.error(entry):
        return False
    if to.spans == "any":
        return any(
            _comes_after(span.start_ns, last) and world.forest.entry(span) is entry and fits(to, span, world)
            for span in world.forest.spans
        )
    return any(
        _comes_after(other.first.start_ns, last)
        and other.first.entry is entry
        and other is not call
        and not (other.failed_in_the_end or other.tries[-1].failed_retryably)
        and _calls_target(other.tries[-1], to, world)
        for other in world.calls.logical
    )


def _comes_after(start_ns: int, last: Try) -> bool:
    """Return whether something started after an attempt was over; some starts are recorded in whole milliseconds."""
    return start_ns - last.over_ns > -WHOLE_MS


def _calls_target(attempt: Try, to: s.SpanSelection, world: World) -> bool:
    span = attempt.server or attempt.primary_span
    return (
        fits_service(to, attempt.callee)
        and matches(to.operation, attempt.operation)
        and (to.where is None or holds(to.where, world.row(span)))
    )
