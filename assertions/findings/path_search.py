"""Search for a path in one trace: its witness spans, or the step at which it ends and the calls made there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from spanproof.collector.traces.completeness import find_related_traces
from spanproof.query_lang.check.constants import Bindings, interpolate
from spanproof.query_lang.compile.path_segments import compile_hops, list_steps
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import find_nearest

if TYPE_CHECKING:
    import duckdb


class Hop(NamedTuple):
    """A possible step of a path: an attempt, or an entry span (`is_async` is None then).

    `matches` says whether an entry span matches the first step, or which of the later steps an attempt matches.
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


class PathMismatch(Struct, frozen=True):
    """The step at which a path ends early; ``observed_hops`` are the attempts made from there."""

    step: s.Step
    arrow: s.Arrow | None
    caller: s.Step | None
    observed_hops: tuple[Hop, ...]
    witness_keys: tuple[int, ...]
    kind: str  # "callee", "operation", "message", "further", "split", "start"


def read_hops(connection: duckdb.DuckDBPyConnection, claim: s.Path, bindings: Bindings, trace_id: str) -> list[Hop]:
    """Read the hops of a path in a trace and in its related traces."""
    traces = "(SELECT unnest($traces)::UUID AS trace_id, true AS trusting)"
    return query_hops(connection, claim, bindings, traces, traces=find_related_traces(connection, trace_id))


def query_hops(
    connection: duckdb.DuckDBPyConnection, claim: s.Path, bindings: Bindings, selected: str, **parameters: object
) -> list[Hop]:
    """Read the hops of a path in the traces of `selected`, a table or a query with these parameters."""
    sql, compiled_parameters = compile_hops(claim, bindings, selected)
    return [Hop(*row) for row in connection.execute(sql, {**compiled_parameters, **parameters}).fetchall()]


class PathFinder:
    """Matcher of one path against hops."""

    def __init__(self, claim: s.Path, bindings: Bindings, hops: Iterable[Hop]) -> None:
        self.bindings = bindings
        self.steps = list_steps(claim.segment)
        self.segments = _flatten_segments(claim.segment)
        self.hops_by_step: list[list[Hop]] = [[] for _ in self.steps]  # the hops that match each step
        self.calls: list[Hop] = []
        self._callees_by_entry: dict[int | None, set[int | None]] = {}  # callee entries by caller entry
        self._matches: dict[tuple[int, int | None], tuple[int, ...] | None] = {}  # by segment and entry span
        for hop in sorted(hops, key=lambda hop: (hop.start_ns, hop.key)):
            is_attempt = hop.is_async is not None
            if is_attempt:
                self.calls.append(hop)
            if hop.is_async is False:
                self._callees_by_entry.setdefault(hop.from_entry, set()).add(hop.to_entry)
            for number, matching in enumerate(hop.matches, int(is_attempt)):
                if matching:
                    self.hops_by_step[number].append(hop)

    def find_witness(self, root: int | None = None) -> tuple[int, ...]:
        """Return the spans of the first match of the whole path, in path order; empty if there is no match."""
        for hop in self.hops_by_step[0]:
            if root in (None, hop.to_entry) and (witness := self._follow_hop(0, hop)):
                return witness
        return ()

    def _follow_hop(self, number: int, hop: Hop) -> tuple[int, ...]:
        """Return the witnesses from `hop` on through all branches of its segment; empty if a branch does not match."""
        key = (number, hop.to_entry)
        if key not in self._matches:
            self._matches[key] = self._follow_branches(number, hop.to_entry)
        witnesses = self._matches[key]
        return () if witnesses is None else tuple(dict.fromkeys((hop.witness, *witnesses)))

    def _follow_branches(self, number: int, entry: int | None) -> tuple[int, ...] | None:
        """Return the witnesses after an entry span, through all branches of its segment; None if a branch fails."""
        witnesses: tuple[int, ...] = ()
        for child in self._list_children(number):
            matches = (self._follow_hop(child, hop) for hop in self._find_next_hops(child, {entry}))
            match = next(filter(None, matches), None)
            if match is None:
                return None
            witnesses += match
        return witnesses

    def find_mismatch(self) -> PathMismatch | None:
        """Return where the longest match of the path ends, or None if the path matches."""
        if not self.hops_by_step[0]:
            return PathMismatch(self.steps[0][0], None, None, (), (), "start")
        return self._find_mismatch_below(0, list(self.hops_by_step[0]))

    def _find_mismatch_below(self, number: int, hops: list[Hop]) -> PathMismatch | None:
        entries = {hop.to_entry for hop in hops}
        for child in self._list_children(number):
            next_hops = self._find_next_hops(child, entries)
            if not next_hops:
                return self._make_mismatch(child, number, hops)
            mismatch = self._find_mismatch_below(child, next_hops)
            if mismatch:
                return mismatch
        if not any(self._follow_hop(number, hop) for hop in hops):
            last = self.steps[self._list_children(number)[-1]][0]
            return PathMismatch(last, None, self.steps[number][0], (), tuple(hop.witness for hop in hops), "split")
        return None

    def _make_mismatch(self, child: int, number: int, hops: list[Hop]) -> PathMismatch:
        step, arrow = self.steps[child]
        entries = {hop.to_entry for hop in hops}
        reachable = self._find_reachable_entries(entries) if arrow == "->>" else entries
        calls = [hop for hop in self.calls if hop.from_entry in reachable]
        observed = [hop for hop in calls if hop.is_async == (arrow == "~>")]
        names = {resolve_service(target, self.bindings) for target in step.targets}
        kind = "callee"
        if any(hop.service in names for hop in observed):
            kind = "operation"
            observed = [hop for hop in observed if hop.service in names]
        elif any(hop.service in names for hop in calls):
            kind = "message"
        elif any(hop.from_entry in self._find_reachable_entries(entries) for hop in self.hops_by_step[child]):
            kind = "further"
        near = find_nearest(str(next(iter(names))), {hop.service for hop in observed}, 1)
        nearest = [hop for hop in observed if hop.service in near] or observed
        witness = (*(hop.witness for hop in hops), *(hop.witness for hop in nearest))
        return PathMismatch(step, arrow, self.steps[number][0], tuple(observed), tuple(dict.fromkeys(witness)), kind)

    def _list_children(self, number: int) -> list[int]:
        """Return the numbers of the segments that follow segment `number`."""
        numbers, next_ = [], number + 1
        for branch in self.segments[number].branches:
            numbers.append(next_)
            next_ += len(_flatten_segments(branch))
        return numbers

    def _find_next_hops(self, child: int, entries: Iterable[int | None]) -> list[Hop]:
        arrow = self.steps[child][1]
        reachable = self._find_reachable_entries(entries) if arrow == "->>" else set(entries) - {None}
        return [hop for hop in self.hops_by_step[child] if hop.from_entry in reachable]

    def _find_reachable_entries(self, entries: Iterable[int | None]) -> set[int | None]:
        """Return `entries` and the entry spans that calls from them reach."""
        reached: set[int | None] = set()
        pending = set(entries) - {None}
        while pending:
            reached |= pending
            pending = {to for entry in pending for to in self._callees_by_entry.get(entry, ())} - reached - {None}
        return reached


def resolve_service(target: s.SpanSelection, bindings: Bindings) -> str | None:
    """Return the service that a target names; None for any service."""
    if target.service is None:
        return None
    if isinstance(target.service, s.Text):
        return interpolate(target.service, bindings)
    variable = bindings.variables.get(target.service.text)
    return str(variable.value) if variable else target.service.text


def _flatten_segments(segment: s.PathSegment) -> list[s.PathSegment]:
    return [segment, *(below for branch in segment.branches for below in _flatten_segments(branch))]
