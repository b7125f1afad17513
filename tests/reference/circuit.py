"""``circuit``: after a number of consecutive failures, a caller stops calling for a while."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Try
from spanproof.tests.reference.conditions import ORDERS, convert, value_of
from spanproof.tests.reference.numbers import Outcome, all_hold
from spanproof.tests.reference.selections import World, select
from spanproof.tests.reference.spans import Span


def judge_circuit(node: s.Circuit, world: World) -> Outcome:
    """Judge ``circuit`` for each instance of the caller, over all traces."""
    assert isinstance(node.call, s.CallSelection)
    tries: list[Try] = select(replace(node.call, attempts=True), world)  # type: ignore[assignment]  # `try`
    instances: dict[object, list[Try]] = defaultdict(list)
    for attempt in sorted(tries, key=lambda attempt: (attempt.start_ns, attempt.end_ns)):
        instances[_instance(attempt, world)].append(attempt)
    judged = [
        (opened, _judge(opened, index, instance_tries, node, world))
        for instance_tries in instances.values()
        for opened, index in _find_openings(instance_tries, node)
    ]
    oks = [(opened.trace_id, ok) for opened, ok in judged if ok is not None]
    outcome = all_hold(oks, world, stable=False)
    return "open" if len(oks) < len(judged) and outcome != "fail" else outcome


def _instance(attempt: Try, world: World) -> tuple[str, str] | None:
    """Return the process of the caller: that of the client span, or of the parent of the server span."""
    caller_span = attempt.exit or (world.forest.parent(attempt.server) if attempt.server is not None else None)
    return None if caller_span is None else _process(caller_span)


def _process(span: Span) -> tuple[str, str]:
    return span.service, repr(sorted(span.resource.items()))


def _find_openings(tries: list[Try], node: s.Circuit) -> Iterator[tuple[Try, int]]:
    """Yield each attempt at which the circuit should have opened, with its index."""
    required_failures = next(
        (_number(clause.failures) for clause in node.clauses if isinstance(clause, s.OpensAfter)), Fraction(1)
    )
    consecutive_failures = 0
    for index, attempt in enumerate(tries):
        consecutive_failures = consecutive_failures + 1 if attempt.error else 0
        if consecutive_failures == required_failures:
            yield attempt, index


def _judge(opened: Try, index: int, tries: list[Try], node: s.Circuit, world: World) -> bool | None:
    """Judge one opening; None if the caller received no request meanwhile."""
    limits = {clause.name: clause for clause in node.clauses if isinstance(clause, s.Limit)}
    holds_ns = _number(limits["holds"].value) if "holds" in limits else Fraction(0)
    closes_ns = opened.end_ns + holds_ns
    if any(opened.end_ns <= attempt.start_ns < closes_ns for attempt in tries):
        return False
    caller = _instance(opened, world)
    had_work = any(
        world.forest.is_entry(span) and _process(span) == caller and opened.end_ns <= span.start_ns < closes_ns
        for span in world.spans()
    )
    if holds_ns > 0 and not had_work:
        has_marker = any(
            _process(span) == caller
            and opened.end_ns <= span.end_ns
            and span.start_ns < closes_ns
            and _list_markers(span) & set(world.rules.circuit_markers)
            for span in world.spans()
        )
        if not has_marker:
            return None
    if "probes" not in limits:
        return True
    probes = 0
    for attempt in tries[index + 1 :]:
        probes += not attempt.error or attempt.start_ns >= closes_ns
        if not attempt.error:
            break
    return ORDERS[limits["probes"].operator](probes, _number(limits["probes"].value))


def _list_markers(span: Span) -> set[str]:
    """Return possible markers of an open circuit: attributes, events, exception types."""
    types = {str(event.attributes.get("exception.type", "")) for event in span.events}
    names = {name for name, value in span.attributes.items() if value not in (False, "false")}
    return names | {event.name for event in span.events} | types | {type_.split(".")[-1] for type_ in types}


def _number(node: s.Expression) -> Fraction:
    value = value_of(node, None)
    number = None if value is None else convert(value, "number")
    assert number is not None
    return Fraction(number)
