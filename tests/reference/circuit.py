"""``circuit``: after so many failures in a row a caller stops asking for a while."""

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
    for one in sorted(tries, key=lambda one: (one.start_ns, one.end_ns)):
        instances[_instance(one, world)].append(one)
    judged = [
        (opened, _judge(opened, place, mine, node, world))
        for mine in instances.values()
        for opened, place in _openings(mine, node)
    ]
    oks = [(opened.trace_id, ok) for opened, ok in judged if ok is not None]
    outcome = all_hold(oks, world, stable=False)
    return "open" if len(oks) < len(judged) and outcome != "fail" else outcome


def _instance(one: Try, world: World) -> tuple[str, str] | None:
    """Return which process asked: the one of the client's span, or of the span above the callee's."""
    above = one.exit or (world.forest.parent(one.server) if one.server is not None else None)
    return None if above is None else _process(above)


def _process(span: Span) -> tuple[str, str]:
    return span.service, repr(sorted(span.resource.items()))


def _openings(tries: list[Try], node: s.Circuit) -> Iterator[tuple[Try, int]]:
    """Yield the try with which the circuit should have opened, and its place."""
    wanted = next(
        (_number(clause.failures) for clause in node.clauses if isinstance(clause, s.OpensAfter)), Fraction(1)
    )
    in_row = 0
    for place, one in enumerate(tries):
        in_row = in_row + 1 if one.error else 0
        if in_row == wanted:
            yield one, place


def _judge(opened: Try, place: int, tries: list[Try], node: s.Circuit, world: World) -> bool | None:
    """Judge one opening; None where the caller was asked nothing meanwhile."""
    limits = {clause.name: clause for clause in node.clauses if isinstance(clause, s.Limit)}
    holds_ns = _number(limits["holds"].value) if "holds" in limits else Fraction(0)
    closes_ns = opened.end_ns + holds_ns
    if any(opened.end_ns <= one.start_ns < closes_ns for one in tries):
        return False
    asking = _instance(opened, world)
    asked = any(
        world.forest.is_entry(span) and _process(span) == asking and opened.end_ns <= span.start_ns < closes_ns
        for span in world.spans()
    )
    if holds_ns > 0 and not asked:
        marked = any(
            _process(span) == asking
            and opened.end_ns <= span.end_ns
            and span.start_ns < closes_ns
            and _marks(span) & set(world.rules.circuit_markers)
            for span in world.spans()
        )
        if not marked:
            return None
    if "probes" not in limits:
        return True
    probes = 0
    for one in tries[place + 1 :]:
        probes += not one.error or one.start_ns >= closes_ns
        if not one.error:
            break
    return ORDERS[limits["probes"].operator](probes, _number(limits["probes"].value))


def _marks(span: Span) -> set[str]:
    """Return what may say that a circuit is open: attributes, events, types of exceptions."""
    types = {str(event.attributes.get("exception.type", "")) for event in span.events}
    names = {name for name, value in span.attributes.items() if value not in (False, "false")}
    return names | {event.name for event in span.events} | types | {type_.split(".")[-1] for type_ in types}


def _number(node: s.Expression) -> Fraction:
    found = value_of(node, None)
    number = None if found is None else convert(found, "number")
    assert number is not None
    return Fraction(number)
