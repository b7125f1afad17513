"""Paths in a trace as it arrives, followed without a query if need be: to plan one takes longer than all else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from spanproof.assertions.findings.path_search import Hop, PathFinder, query_hops, resolve_service
from spanproof.assertions.findings.verdict import Witness
from spanproof.query_lang.check.constants import Bindings, interpolate
from spanproof.query_lang.compile.path_segments import list_steps
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import pyarrow as pa

    from spanproof.collector.traces.live_traces import LiveTraces

# Tells of a service and an operation whether a step means them.
StepMatcher: TypeAlias = Callable[[str, str], bool]


def find_live_path(live: LiveTraces, claim: s.Path, bindings: Bindings, trace_id: str) -> tuple[Witness, ...]:
    """Return the spans of the first way through a path in one of these traces, by what surely counts; none if none.

    Where steps ask more than who did what, that takes a query, of the one trace that is selected.
    """
    steps = list_steps(claim.segment)
    if any(target.where is not None for step, _ in steps for target in step.targets):
        stops = query_hops(live.connection, claim, bindings, "selected")
    else:
        stops = list(_read_hops(live, steps, bindings, bytes.fromhex(trace_id)))
    keys = PathFinder(claim, bindings, stops).find_witness()
    if not keys:
        return ()
    spans = live.read_table("spans")
    ids = dict(zip(spans["span_key"].to_pylist(), spans["span_id"].to_pylist(), strict=True))
    return tuple(Witness(trace_id, f"{ids[key]:016x}") for key in keys)


def _read_hops(
    live: LiveTraces, steps: list[tuple[s.Step, s.Arrow | None]], bindings: Bindings, trace_id: bytes
) -> Iterator[Hop]:
    """Yield what ``legs.compile_trail`` selects."""
    (first, _), *others = steps
    means_first = _make_step_matcher(first, bindings)
    means = [(_make_step_matcher(step, bindings), arrow == "~>") for step, arrow in others]
    for row in _read_rows(
        live.read_table("topology"), trace_id, "is_entry", "definite", "span_key", "service", "name", "start_ns"
    ):
        is_entry, definite, key, service, name, start_ns = row
        if is_entry and definite:
            yield Hop(None, key, key, service, name, None, start_ns, key, [means_first(service, name)])
    names = ("definite", "caller_entry", "callee_entry", "client_key", "callee", "operation", "async", "start_ns")
    for row in _read_rows(live.read_table("attempts"), trace_id, *names, "attempt_key"):
        definite, from_, to, client, callee, operation, is_async, start_ns, key = row
        if definite:
            matches = [is_async == wanted and one_means(callee, operation) for one_means, wanted in means]
            yield Hop(from_, to, client if to is None else to, callee, operation, is_async, start_ns, key, matches)


def _read_rows(table: pa.Table, trace_id: bytes, *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of the rows of a trace."""
    trace_ids = table["trace_id"].combine_chunks().storage.to_pylist()
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return (row for row, of in zip(rows, trace_ids, strict=True) if of == trace_id)


def _make_step_matcher(step: s.Step, bindings: Bindings) -> StepMatcher:
    """Return what tells whether a step means a service and an operation, as ``conditions.py`` has it in SQL."""
    targets = [
        (resolve_service(target, bindings), _compile_operation_pattern(target.operation, bindings))
        for target in step.targets
    ]
    return lambda service, operation: any(
        wanted in (None, service) and (name is None or name.fullmatch(operation) is not None)
        for wanted, name in targets
    )


def _compile_operation_pattern(operation: s.Text | None, bindings: Bindings) -> re.Pattern[str] | None:
    """Return the pattern of an operation's name, in which ``*`` stands for anything."""
    if operation is None:
        return None
    parts = interpolate(operation, bindings, keep_unknown=True).split("*")
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
