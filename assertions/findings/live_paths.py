"""Paths in an arriving trace, found without SQL where possible: planning a query takes longer than the search."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from spanproof.assertions.findings.path_search import Hop, PathFinder, query_hops, resolve_service
from spanproof.assertions.findings.verdict import Witness
from spanproof.query_lang.check.constants import Bindings, interpolate
from spanproof.query_lang.compile.path_segments import has_stable_steps, list_steps
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import pyarrow as pa

    from spanproof.collector.traces.live_traces import LiveTraces

# Returns whether a step matches a service and an operation.
StepMatcher: TypeAlias = Callable[[str, str], bool]


def find_live_path(live: LiveTraces, claim: s.Path, bindings: Bindings, trace_id: str) -> tuple[Witness, ...]:
    """Return the spans of the first match of a path in a trace, from definite rows only; empty if there is no match.

    Steps with a ``where`` condition need a query over the one selected trace.
    """
    if not has_stable_steps(claim):
        return ()
    steps = list_steps(claim.segment)
    if any(target.where is not None for step, _ in steps for target in step.targets):
        hops = query_hops(live.connection, claim, bindings, "selected")
    else:
        hops = list(_read_hops(live, steps, bindings, bytes.fromhex(trace_id)))
    keys = PathFinder(claim, bindings, hops).find_witness()
    if not keys:
        return ()
    spans = live.read_table("spans")
    ids = dict(zip(spans["span_key"].to_pylist(), spans["span_id"].to_pylist(), strict=True))
    return tuple(Witness(trace_id, f"{ids[key]:016x}") for key in keys)


def _read_hops(
    live: LiveTraces, steps: list[tuple[s.Step, s.Arrow | None]], bindings: Bindings, trace_id: bytes
) -> Iterator[Hop]:
    """Yield the rows that ``path_segments.compile_hops`` selects."""
    (first, _), *others = steps
    matches_first = _make_step_matcher(first, bindings)
    matchers = [(_make_step_matcher(step, bindings), arrow == "~>") for step, arrow in others]
    for row in _read_rows(
        live.read_table("topology"), trace_id, "is_entry", "definite", "span_key", "service", "name", "start_ns"
    ):
        is_entry, definite, key, service, name, start_ns = row
        if is_entry and definite:
            yield Hop(None, key, key, service, name, None, start_ns, key, [matches_first(service, name)])
    names = ("definite", "caller_entry", "callee_entry", "client_key", "callee", "operation", "async", "start_ns")
    for row in _read_rows(live.read_table("attempts"), trace_id, *names, "attempt_key"):
        definite, caller_entry, callee_entry, client_key, callee, operation, is_async, start_ns, key = row
        if definite:
            matches = [is_async == message and matcher(callee, operation) for matcher, message in matchers]
            witness = client_key if callee_entry is None else callee_entry
            yield Hop(caller_entry, callee_entry, witness, callee, operation, is_async, start_ns, key, matches)


def _read_rows(table: pa.Table, trace_id: bytes, *names: str) -> Iterator[tuple[Any, ...]]:
    """Return the named columns of the rows of a trace."""
    trace_ids = table["trace_id"].combine_chunks().storage.to_pylist()
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return (row for row, row_trace_id in zip(rows, trace_ids, strict=True) if row_trace_id == trace_id)


def _make_step_matcher(step: s.Step, bindings: Bindings) -> StepMatcher:
    """Return a function that matches services and operations against a step, as ``conditions.py`` does in SQL."""
    targets = [
        (resolve_service(target, bindings), _compile_operation_pattern(target.operation, bindings))
        for target in step.targets
    ]
    return lambda service, operation: any(
        expected in (None, service) and (pattern is None or pattern.fullmatch(operation) is not None)
        for expected, pattern in targets
    )


def _compile_operation_pattern(operation: s.Text | None, bindings: Bindings) -> re.Pattern[str] | None:
    """Return the pattern of an operation name, in which ``*`` matches any text; None if any operation matches."""
    if operation is None:
        return None
    parts = interpolate(operation, bindings, keep_unknown=True).split("*")
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
