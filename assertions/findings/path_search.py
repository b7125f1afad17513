"""Follows a path through one trace: where it went, and what was called instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from spanproof.collector.traces.completeness import find_related_traces
from spanproof.query_lang.check.constants import Bindings, interpolate
from spanproof.query_lang.compile.path_segments import compile_hops, list_steps
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import find_nearest

if TYPE_CHECKING:
    import duckdb


class Hop(NamedTuple):
    """Where a path may come by: an exchange, or an entry span by itself (`asynchronous` is None then).

    `matches` says of an entry span whether it is the first step, of an exchange, to which of the others it leads.
    """

    from_entry: int | None
    to_entry: int | None
    witness: int
    service: str
    operation: str
    is_async: bool | None
    start_ns: int
    key: int
    matches: Sequence[bool | None]


@dataclass(frozen=True, slots=True)
class PathMismatch:
    """Where a path ends too early. ``seen`` are the exchanges that were made from there."""

    step: s.Step
    arrow: s.Arrow | None
    caller: s.Step | None
    observed_hops: tuple[Hop, ...]
    witness_keys: tuple[int, ...]
    kind: str  # "callee", "operation", "message", "further", "split", "start"


def read_hops(connection: duckdb.DuckDBPyConnection, claim: s.Path, bindings: Bindings, trace_id: str) -> list[Hop]:
    """Read all that a path might go through in a trace, and in those that it goes on in."""
    traces = "(SELECT unnest($traces)::UUID AS trace_id, true AS trusting)"
    return query_hops(connection, claim, bindings, traces, traces=find_related_traces(connection, trace_id))


def query_hops(
    connection: duckdb.DuckDBPyConnection, claim: s.Path, bindings: Bindings, selected: str, **parameters: object
) -> list[Hop]:
    """Read all that a path might go through in the traces of `selected`, a table or a query with these parameters."""
    sql, own = compile_hops(claim, bindings, selected)
    return [Hop(*row) for row in connection.execute(sql, {**own, **parameters}).fetchall()]


class PathFinder:
    """Follows one path through the stops that there are."""

    def __init__(self, claim: s.Path, bindings: Bindings, hops: Iterable[Hop]) -> None:
        self.bindings = bindings
        self.steps = list_steps(claim.segment)
        self.segments = _flatten_segments(claim.segment)
        self.hops_by_step: list[list[Hop]] = [[] for _ in self.steps]  # that match each step by themselves
        self.calls: list[Hop] = []
        self._callees_by_entry: dict[int | None, set[int | None]] = {}  # to which entry spans calls lead from which
        self._matches: dict[tuple[int, int | None], tuple[int, ...] | None] = {}  # by leg and entry span
        for stop in sorted(hops, key=lambda stop: (stop.start_ns, stop.key)):
            is_hop = stop.is_async is not None
            if is_hop:
                self.calls.append(stop)
            if stop.is_async is False:
                self._callees_by_entry.setdefault(stop.from_entry, set()).add(stop.to_entry)
            for number, matching in enumerate(stop.matches, int(is_hop)):
                if matching:
                    self.hops_by_step[number].append(stop)

    def find_witness(self, root: int | None = None) -> tuple[int, ...]:
        """Return the spans of the first way through the whole path, in its order; none if there is none."""
        for stop in self.hops_by_step[0]:
            if root in (None, stop.to_entry) and (found := self._follow_hop(0, stop)):
                return found
        return ()

    def _follow_hop(self, number: int, hop: Hop) -> tuple[int, ...]:
        """Return the witnesses from `stop` on through all branches of its leg."""
        place = (number, hop.to_entry)
        if place not in self._matches:
            self._matches[place] = self._follow_branches(number, hop.to_entry)
        further = self._matches[place]
        return () if further is None else tuple(dict.fromkeys((hop.witness, *further)))

    def _follow_branches(self, number: int, entry: int | None) -> tuple[int, ...] | None:
        """Return the witnesses beyond an entry span, through all branches of its leg; None if there is no way."""
        found: tuple[int, ...] = ()
        for child in self._list_children(number):
            ways = (self._follow_hop(child, entered) for entered in self._find_next_hops(child, {entry}))
            way = next(filter(None, ways), None)
            if way is None:
                return None
            found += way
        return found

    def find_mismatch(self) -> PathMismatch | None:
        """Return where the longest match of the path ends, or None if nothing is missing."""
        if not self.hops_by_step[0]:
            return PathMismatch(self.steps[0][0], None, None, (), (), "start")
        return self._find_mismatch_below(0, list(self.hops_by_step[0]))

    def _find_mismatch_below(self, number: int, hops: list[Hop]) -> PathMismatch | None:
        entries = {stop.to_entry for stop in hops}
        for child in self._list_children(number):
            entered = self._find_next_hops(child, entries)
            if not entered:
                return self._make_mismatch(child, number, hops)
            below = self._find_mismatch_below(child, entered)
            if below:
                return below
        if not any(self._follow_hop(number, stop) for stop in hops):
            last = self.steps[self._list_children(number)[-1]][0]
            return PathMismatch(last, None, self.steps[number][0], (), tuple(stop.witness for stop in hops), "split")
        return None

    def _make_mismatch(self, child: int, number: int, hops: list[Hop]) -> PathMismatch:
        step, arrow = self.steps[child]
        entries = {stop.to_entry for stop in hops}
        reach = self._find_reachable_entries(entries) if arrow == "->>" else entries
        made = [hop for hop in self.calls if hop.from_entry in reach]
        seen = [hop for hop in made if hop.is_async == (arrow == "~>")]
        names = {resolve_service(target, self.bindings) for target in step.targets}
        kind = "callee"
        if any(hop.service in names for hop in seen):
            kind = "operation"
            seen = [hop for hop in seen if hop.service in names]
        elif any(hop.service in names for hop in made):
            kind = "message"
        elif any(stop.from_entry in self._find_reachable_entries(entries) for stop in self.hops_by_step[child]):
            kind = "further"
        near = find_nearest(str(next(iter(names))), {hop.service for hop in seen}, 1)
        shown = [hop for hop in seen if hop.service in near] or seen
        witness = (*(stop.witness for stop in hops), *(hop.witness for hop in shown))
        return PathMismatch(step, arrow, self.steps[number][0], tuple(seen), tuple(dict.fromkeys(witness)), kind)

    def _list_children(self, number: int) -> list[int]:
        """Return the numbers of the legs that go on from leg `number`."""
        found, next_ = [], number + 1
        for branch in self.segments[number].branches:
            found.append(next_)
            next_ += len(_flatten_segments(branch))
        return found

    def _find_next_hops(self, child: int, entries: Iterable[int | None]) -> list[Hop]:
        arrow = self.steps[child][1]
        reach = self._find_reachable_entries(entries) if arrow == "->>" else set(entries) - {None}
        return [stop for stop in self.hops_by_step[child] if stop.from_entry in reach]

    def _find_reachable_entries(self, entries: Iterable[int | None]) -> set[int | None]:
        """Return the entry spans that calls lead to from `entries`, these included."""
        reached: set[int | None] = set()
        pending = set(entries) - {None}
        while pending:
            reached |= pending
            pending = {to for entry in pending for to in self._callees_by_entry.get(entry, ())} - reached - {None}
        return reached


def resolve_service(target: s.SpanSelection, bindings: Bindings) -> str | None:
    """Return the service a target names; None for any."""
    if target.service is None:
        return None
    if isinstance(target.service, s.Text):
        return interpolate(target.service, bindings)
    variable = bindings.variables.get(target.service.text)
    return str(variable.value) if variable else target.service.text


def _flatten_segments(segment: s.PathSegment) -> list[s.PathSegment]:
    return [segment, *(below for branch in segment.branches for below in _flatten_segments(branch))]
