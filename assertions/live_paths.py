"""Paths in a trace as it arrives, followed without a query if need be: to plan one takes longer than all else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from spanproof.assertions.paths import PathFinder, Stop, fill_service, query_stops
from spanproof.assertions.verdict import Witness
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, fill
from spanproof.query_lang.legs import steps_of

if TYPE_CHECKING:
    import pyarrow as pa

    from spanproof.collector.live import LiveTraces

# Tells of a service and an operation whether a step means them.
Means: TypeAlias = Callable[[str, str], bool]


def find_live_path(live: LiveTraces, claim: s.Path, bindings: Bindings, trace_id: str) -> tuple[Witness, ...]:
    """Return the spans of the first way through a path in one of these traces, by what surely counts; none if none.

    Where steps ask more than who did what, that takes a query, of the one trace that is selected.
    """
    steps = steps_of(claim.leg)
    if any(target.where is not None for step, _ in steps for target in step.targets):
        stops = query_stops(live.connection, claim, bindings, "selected")
    else:
        stops = list(_read_stops(live, steps, bindings, bytes.fromhex(trace_id)))
    keys = PathFinder(claim, bindings, stops).witness()
    if not keys:
        return ()
    spans = live.read("spans")
    ids = dict(zip(spans["span_key"].to_pylist(), spans["span_id"].to_pylist(), strict=True))
    return tuple(Witness(trace_id, f"{ids[key]:016x}") for key in keys)


def _read_stops(
    live: LiveTraces, steps: list[tuple[s.Step, s.Arrow | None]], bindings: Bindings, trace_id: bytes
) -> Iterator[Stop]:
    """Yield what ``legs.compile_trail`` selects."""
    (first, _), *others = steps
    means_first = _read_step(first, bindings)
    means = [(_read_step(step, bindings), arrow == "~>") for step, arrow in others]
    for row in _rows(live.read("tree"), trace_id, "is_entry", "definite", "span_key", "service", "name", "start_ns"):
        is_entry, definite, key, service, name, start_ns = row
        if is_entry and definite:
            yield Stop(None, key, key, service, name, None, start_ns, key, [means_first(service, name)])
    names = ("definite", "caller_entry", "callee_entry", "client_key", "callee", "operation", "async", "start_ns")
    for row in _rows(live.read("exchanges"), trace_id, *names, "exchange_key"):
        definite, from_, to, client, callee, operation, is_async, start_ns, key = row
        if definite:
            matches = [is_async == wanted and one_means(callee, operation) for one_means, wanted in means]
            yield Stop(from_, to, client if to is None else to, callee, operation, is_async, start_ns, key, matches)


def _rows(table: pa.Table, trace_id: bytes, *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of the rows of a trace."""
    trace_ids = table["trace_id"].combine_chunks().storage.to_pylist()
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return (row for row, of in zip(rows, trace_ids, strict=True) if of == trace_id)


def _read_step(step: s.Step, bindings: Bindings) -> Means:
    """Return what tells whether a step means a service and an operation, as ``conditions.py`` has it in SQL."""
    targets = [(fill_service(target, bindings), _read_name(target.operation, bindings)) for target in step.targets]
    return lambda service, operation: any(
        wanted in (None, service) and (name is None or name.fullmatch(operation) is not None)
        for wanted, name in targets
    )


def _read_name(operation: s.Text | None, bindings: Bindings) -> re.Pattern[str] | None:
    """Return the pattern of an operation's name, in which ``*`` stands for anything."""
    if operation is None:
        return None
    parts = fill(operation, bindings, braces=True).split("*")
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
