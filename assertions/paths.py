"""Follows a path through one trace: where it went, and what was called instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from spanproof.collector.completeness import relate
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, fill
from spanproof.query_lang.diagnostics import nearest
from spanproof.query_lang.legs import compile_stops, steps_of

if TYPE_CHECKING:
    import duckdb


class Stop(NamedTuple):
    """Where a path may come by: an exchange, or an entry span by itself (`asynchronous` is None then).

    `matches` says of an entry span whether it is the first step, of an exchange, to which of the others it leads.
    """

    from_entry: int | None
    to_entry: int | None
    witness: int
    service: str
    operation: str
    asynchronous: bool | None
    start_ns: int
    key: int
    matches: Sequence[bool | None]


@dataclass(frozen=True, slots=True)
class Miss:
    """Where a path ends too early. ``seen`` are the exchanges that were made from there."""

    step: s.Step
    arrow: s.Arrow | None
    caller: s.Step | None
    seen: tuple[Stop, ...]
    witness: tuple[int, ...]
    kind: str  # "callee", "operation", "message", "further", "split", "start"


def read_stops(connection: duckdb.DuckDBPyConnection, claim: s.Path, bindings: Bindings, trace_id: str) -> list[Stop]:
    """Read all that a path might go through in a trace, and in those that it goes on in."""
    traces = "(SELECT unnest($traces)::UUID AS trace_id, true AS trusting)"
    return query_stops(connection, claim, bindings, traces, traces=relate(connection, trace_id))


def query_stops(
    connection: duckdb.DuckDBPyConnection, claim: s.Path, bindings: Bindings, selected: str, **parameters: object
) -> list[Stop]:
    """Read all that a path might go through in the traces of `selected`, a table or a query with these parameters."""
    sql, own = compile_stops(claim, bindings, selected)
    return [Stop(*row) for row in connection.execute(sql, {**own, **parameters}).fetchall()]


class PathFinder:
    """Follows one path through the stops that there are."""

    def __init__(self, claim: s.Path, bindings: Bindings, stops: Iterable[Stop]) -> None:
        self.bindings = bindings
        self.steps = steps_of(claim.leg)
        self.legs = _legs_in_order(claim.leg)
        self.stops: list[list[Stop]] = [[] for _ in self.steps]  # that match each step by themselves
        self.hops: list[Stop] = []
        self._onward: dict[int | None, set[int | None]] = {}  # to which entry spans calls lead from which
        self._followed: dict[tuple[int, int | None], tuple[int, ...] | None] = {}  # by leg and entry span
        for stop in sorted(stops, key=lambda stop: (stop.start_ns, stop.key)):
            is_hop = stop.asynchronous is not None
            if is_hop:
                self.hops.append(stop)
            if stop.asynchronous is False:
                self._onward.setdefault(stop.from_entry, set()).add(stop.to_entry)
            for number, matching in enumerate(stop.matches, int(is_hop)):
                if matching:
                    self.stops[number].append(stop)

    def witness(self, root: int | None = None) -> tuple[int, ...]:
        """Return the spans of the first way through the whole path, in its order; none if there is none."""
        for stop in self.stops[0]:
            if root in (None, stop.to_entry) and (found := self._follow(0, stop)):
                return found
        return ()

    def _follow(self, number: int, stop: Stop) -> tuple[int, ...]:
        """Return the witnesses from `stop` on through all branches of its leg."""
        place = (number, stop.to_entry)
        if place not in self._followed:
            self._followed[place] = self._go_on(number, stop.to_entry)
        further = self._followed[place]
        return () if further is None else tuple(dict.fromkeys((stop.witness, *further)))

    def _go_on(self, number: int, entry: int | None) -> tuple[int, ...] | None:
        """Return the witnesses beyond an entry span, through all branches of its leg; None if there is no way."""
        found: tuple[int, ...] = ()
        for child in self._children(number):
            ways = (self._follow(child, entered) for entered in self._next(child, {entry}))
            way = next(filter(None, ways), None)
            if way is None:
                return None
            found += way
        return found

    def miss(self) -> Miss | None:
        """Return where the longest match of the path ends, or None if nothing is missing."""
        if not self.stops[0]:
            return Miss(self.steps[0][0], None, None, (), (), "start")
        return self._miss_below(0, list(self.stops[0]))

    def _miss_below(self, number: int, here: list[Stop]) -> Miss | None:
        entries = {stop.to_entry for stop in here}
        for child in self._children(number):
            entered = self._next(child, entries)
            if not entered:
                return self._miss_at(child, number, here)
            below = self._miss_below(child, entered)
            if below:
                return below
        if not any(self._follow(number, stop) for stop in here):
            last = self.steps[self._children(number)[-1]][0]
            return Miss(last, None, self.steps[number][0], (), tuple(stop.witness for stop in here), "split")
        return None

    def _miss_at(self, child: int, number: int, here: list[Stop]) -> Miss:
        step, arrow = self.steps[child]
        entries = {stop.to_entry for stop in here}
        reach = self._reach(entries) if arrow == "->>" else entries
        made = [hop for hop in self.hops if hop.from_entry in reach]
        seen = [hop for hop in made if hop.asynchronous == (arrow == "~>")]
        names = {fill_service(target, self.bindings) for target in step.targets}
        kind = "callee"
        if any(hop.service in names for hop in seen):
            kind = "operation"
            seen = [hop for hop in seen if hop.service in names]
        elif any(hop.service in names for hop in made):
            kind = "message"
        elif any(stop.from_entry in self._reach(entries) for stop in self.stops[child]):
            kind = "further"
        near = nearest(str(next(iter(names))), {hop.service for hop in seen}, 1)
        shown = [hop for hop in seen if hop.service in near] or seen
        witness = (*(stop.witness for stop in here), *(hop.witness for hop in shown))
        return Miss(step, arrow, self.steps[number][0], tuple(seen), tuple(dict.fromkeys(witness)), kind)

    def _children(self, number: int) -> list[int]:
        """Return the numbers of the legs that go on from leg `number`."""
        found, next_ = [], number + 1
        for branch in self.legs[number].branches:
            found.append(next_)
            next_ += len(_legs_in_order(branch))
        return found

    def _next(self, child: int, entries: Iterable[int | None]) -> list[Stop]:
        arrow = self.steps[child][1]
        reach = self._reach(entries) if arrow == "->>" else set(entries) - {None}
        return [stop for stop in self.stops[child] if stop.from_entry in reach]

    def _reach(self, entries: Iterable[int | None]) -> set[int | None]:
        """Return the entry spans that calls lead to from `entries`, these included."""
        reached: set[int | None] = set()
        pending = set(entries) - {None}
        while pending:
            reached |= pending
            pending = {to for entry in pending for to in self._onward.get(entry, ())} - reached - {None}
        return reached


def fill_service(target: s.Target, bindings: Bindings) -> str | None:
    """Return the service a target names; None for any."""
    if target.service is None:
        return None
    if isinstance(target.service, s.Text):
        return fill(target.service, bindings)
    variable = bindings.variables.get(target.service.text)
    return str(variable.value) if variable else target.service.text


def _legs_in_order(leg: s.Leg) -> list[s.Leg]:
    return [leg, *(below for branch in leg.branches for below in _legs_in_order(branch))]
