"""``circuit``: after a number of consecutive failures, a caller stops calling for a while."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from spanproof.query_lang.syntax import nodes as s
from spanproof.tests.reference.calls import Try, instance_of, instance_of_span
from spanproof.tests.reference.conditions import ORDERS, convert, value_of
from spanproof.tests.reference.numbers import Outcome, all_hold
from spanproof.tests.reference.selections import World, select
from spanproof.tests.reference.spans import Span


class Limits(Struct, frozen=True):
    """The numbers of a claim."""

    failures: Fraction
    holds_ns: Fraction | None
    probes: s.Limit | None


def judge_circuit(node: s.Circuit, world: World) -> Outcome:
    """Judge ``circuit`` for each instance of the caller, over all traces."""
    assert isinstance(node.call, s.CallSelection)
    tries: list[Try] = select(replace(node.call, attempts=True), world)  # type: ignore[assignment]  # `try`
    instances: dict[object, list[Try]] = defaultdict(list)
    for attempt in sorted(tries, key=lambda attempt: (attempt.start_ns, attempt.end_ns)):
        instances[instance_of(attempt)].append(attempt)
    calling = {(attempt.entry.service, attempt.entry.name) for attempt in tries if attempt.entry is not None}
    for instance, instance_tries in instances.items():
        calling -= _list_optional_operations(instance, instance_tries, world)
    limits = _limits(node)
    judged = [
        verdict
        for instance, instance_tries in instances.items()
        for verdict in Instance(instance, instance_tries, limits, calling, world).judge()
    ]
    oks = [(opened.trace_id, ok) for opened, ok in judged if ok is not None]
    outcome = all_hold(oks, world, stable=False)
    return "open" if judged and not oks else outcome


def _limits(node: s.Circuit) -> Limits:
    by_name = {clause.name: clause for clause in node.clauses if isinstance(clause, s.Limit)}
    failures = next((_number(clause.failures) for clause in node.clauses if isinstance(clause, s.OpensAfter)), None)
    return Limits(
        failures or Fraction(1),
        _number(by_name["holds"].value) if "holds" in by_name else None,
        by_name.get("probes"),
    )


def _list_optional_operations(instance: object, tries: list[Try], world: World) -> set[tuple[str, str]]:
    """Return the operations of which a request made no attempt although the last result had been no failure."""
    entries = [attempt.entry for attempt in tries]
    results = sorted(tries, key=_order_of_results)
    optional = set()
    for span in world.spans():
        if not world.forest.serves(span) or instance_of_span(span) != instance or span in entries:
            continue
        before = [attempt for attempt in results if attempt.end_ns <= span.start_ns]
        if before and not world.calls.of[before[-1]].failed_retryably(before[-1]):
            optional.add((span.service, span.name))
    return optional


def _order_of_results(attempt: Try) -> tuple[int, int]:
    return attempt.end_ns, attempt.start_ns


class Instance:
    """The attempts of one instance of the caller, in order."""

    def __init__(
        self, instance: object, tries: list[Try], limits: Limits, calling: set[tuple[str, str]], world: World
    ) -> None:
        self.tries, self.limits, self.world = tries, limits, world
        forest = world.forest
        entries = [attempt.entry for attempt in tries if attempt.entry is not None]
        self.requests = [
            span
            for span in world.spans()
            if forest.serves(span)
            and instance_of_span(span) == instance
            and (span.service, span.name) in calling
            and span not in entries
        ]
        self.marked = [
            span
            for span in world.spans()
            if instance_of_span(span) == instance and _list_markers(span) & set(world.rules.circuit_markers)
        ]
        self.end_ns = max((span.end_ns for span in world.spans()), default=0)

    def judge(self) -> list[tuple[Try, bool | None]]:
        """Return each opening and each early opening with its verdict; results count in the order they come."""
        judged: list[tuple[Try, bool | None]] = []
        results = sorted(self.tries, key=_order_of_results)
        streak, index, is_open = 0, 0, False
        while index < len(results):
            attempt = results[index]
            index += 1
            if not self._failed(attempt):
                streak, is_open = 0, False
                continue
            streak += 1
            if is_open or streak == self.limits.failures:
                ok, probes = self._judge_opening(attempt)
                judged.append((attempt, ok))
                is_open = ok is not False and bool(probes)
                if is_open:
                    index = results.index(min(probes, key=lambda probe: (probe.end_ns, probe.start_ns)))
            elif streak < self.limits.failures and self._opened_early(attempt, results[index:]):
                judged.append((attempt, False))
        return judged

    def _failed(self, attempt: Try) -> bool:
        return self.world.calls.of[attempt].failed_retryably(attempt)

    def _was_asked(self, from_ns: Fraction | int, until_ns: Fraction | int) -> bool:
        return any(from_ns <= span.start_ns < until_ns for span in self.requests) or any(
            span.end_ns >= from_ns and span.start_ns < until_ns for span in self.marked
        )

    def _next(self, attempt: Try) -> Try | None:
        return next((each for each in self.tries if each is not attempt and each.start_ns >= attempt.end_ns), None)

    def _opened_early(self, attempt: Try, later: list[Try]) -> bool:
        """Return whether the caller was asked before the next result (of the `later` ones), but made no attempt."""
        next_, holds_ns = self._next(attempt), self.limits.holds_ns
        if next_ is None and holds_ns is None:
            return False
        until_ns = self.end_ns if next_ is None else next_.start_ns
        if holds_ns is not None and until_ns < attempt.end_ns + holds_ns:
            return False
        if next_ is None:
            until_ns += 1  # a request at the very end counts
        return self._was_asked(attempt.end_ns, min([until_ns, *(each.end_ns for each in later)]))

    def _judge_opening(self, opened: Try) -> tuple[bool | None, list[Try]]:
        """Return the verdict on one opening (None if it was not seen whole), and its probes."""
        from_ns, next_ = opened.end_ns, self._next(opened)
        holds_ns = self.limits.holds_ns
        until_ns = from_ns + holds_ns if holds_ns is not None else next_.start_ns if next_ else self.end_ns + 1
        if next_ is not None and next_.start_ns < until_ns:
            return False, []
        asked = self._was_asked(from_ns, until_ns)
        if holds_ns is None and next_ is not None and not asked:
            return False, []
        probes = self._list_probes(opened)
        limit = self.limits.probes
        if limit is not None and probes and not ORDERS[limit.operator](len(probes), _number(limit.value)):
            return False, probes
        if not asked or until_ns > self.end_ns + 1:
            return None, probes
        return True, probes

    def _list_probes(self, opened: Try) -> list[Try]:
        """Return the attempts after an opening that began before one of them had ended."""
        probes: list[Try] = []
        for attempt in (each for each in self.tries if each is not opened and each.start_ns >= opened.end_ns):
            if probes and attempt.start_ns >= min(probe.end_ns for probe in probes):
                break
            probes.append(attempt)
        return probes


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
