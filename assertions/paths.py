"""Follows a path through one trace: where it went, and what was called instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spanproof.collector.completeness import relate
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, fill
from spanproof.query_lang.diagnostics import nearest
from spanproof.query_lang.legs import compile_stops, steps_of

if TYPE_CHECKING:
    import duckdb

# The trace to look at, and those that it goes on in.
FOCUS = """
CREATE OR REPLACE TEMP TABLE focus AS
SELECT unnest($traces)::UUID AS trace_id, true AS settled, true AS trusting
"""


@dataclass(frozen=True, slots=True)
class Stop:
    """An exchange (or, for the first step, an entry span) that matches a step by itself."""

    step: int
    from_entry: int | None
    to_entry: int | None
    witness: int


@dataclass(frozen=True, slots=True)
class Hop:
    """Any exchange of the trace."""

    from_entry: int | None
    to_entry: int | None
    callee: str
    operation: str
    asynchronous: bool
    witness: int


@dataclass(frozen=True, slots=True)
class Miss:
    """Where a path ends too early. ``seen`` are the exchanges that were made from there."""

    step: s.Step
    arrow: s.Arrow | None
    caller: s.Step | None
    seen: tuple[Hop, ...]
    witness: tuple[int, ...]
    kind: str  # "callee", "operation", "message", "further", "split", "start"


class PathFinder:
    """Follows one path through one trace."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, claim: s.Path, bindings: Bindings, trace_id: str) -> None:
        self.bindings = bindings
        self.steps = steps_of(claim.leg)
        self.legs = _legs_in_order(claim.leg)
        connection.execute(FOCUS, {"traces": relate(connection, trace_id)})
        sql, parameters = compile_stops(claim, bindings, "focus")
        stops = [Stop(*row[:4]) for row in connection.execute(sql, parameters).fetchall()]
        self.stops = {number: [stop for stop in stops if stop.step == number] for number in range(len(self.steps))}
        self.hops = [
            Hop(*row)
            for row in connection.execute(
                "SELECT caller_entry, callee_entry, callee, operation, async, coalesce(callee_entry, client_key)"
                " FROM hops SEMI JOIN focus USING (trace_id) ORDER BY start_ns, exchange_key"
            ).fetchall()
        ]

    def witness(self, root: int | None = None) -> tuple[int, ...]:
        """Return the spans of the first way through the whole path, in its order; none if there is none."""
        for stop in self.stops[0]:
            if root in (None, stop.to_entry) and (found := self._follow(0, stop)):
                return found
        return ()

    def _follow(self, number: int, stop: Stop) -> tuple[int, ...]:
        """Return the witnesses from `stop` on through all branches of its leg."""
        found: list[int] = [stop.witness]
        for child in self._children(number):
            for entered in self._next(child, {stop.to_entry}):
                rest = self._follow(child, entered)
                if rest:
                    found += rest
                    break
            else:
                return ()
        return tuple(dict.fromkeys(found))

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
        if any(hop.callee in names for hop in seen):
            kind = "operation"
            seen = [hop for hop in seen if hop.callee in names]
        elif any(hop.callee in names for hop in made):
            kind = "message"
        elif any(stop.from_entry in self._reach(entries) for stop in self.stops[child]):
            kind = "further"
        near = nearest(str(next(iter(names))), {hop.callee for hop in seen}, 1)
        shown = [hop for hop in seen if hop.callee in near] or seen
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
        reached = set(entries) - {None}
        grown = True
        while grown:
            further = {hop.to_entry for hop in self.hops if hop.from_entry in reached and not hop.asynchronous} - {None}
            grown = not further <= reached
            reached |= further
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
