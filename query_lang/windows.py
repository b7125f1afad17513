"""``given`` as SQL: the traces of a window of time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from spanproof.query_lang import syntax as s
from spanproof.query_lang.conditions import Parameters
from spanproof.query_lang.constants import Bindings, NoValue, as_text, evaluate, number
from spanproof.query_lang.selections import EVERY_TRACE, select

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def compile_window(given: s.Given, bindings: Bindings, now_ns: int) -> tuple[str, dict[str, object]]:
    """Return the query for the traces that have, within the window, one span that matches both parts of `given`."""
    parameters = Parameters(traces=EVERY_TRACE)
    start = given.start or s.Target("any", None, None, None, given.at)
    if given.where is not None:
        start = _narrow(start, given.where)
    rows = select(start, parameters, bindings)
    low, high = find_bounds(given.window, bindings, now_ns)
    within = [f"{rows.start} >= {parameters.add(low)}"]
    if high is not None:
        within.append(f"{rows.start} < {parameters.add(high)}")
    return rows.select(f"DISTINCT {rows.trace} AS trace_id", *within), parameters.values


def _narrow(selection: s.Selection, where: s.Expression) -> s.Selection:
    """Add a condition to a selection; to that of the callee, for calls."""
    if isinstance(selection, s.Call):
        callee = _narrow(selection.callee, where)
        assert isinstance(callee, s.Target)  # noqa: S101 (it was one)
        return replace(selection, callee=callee)
    both = where if selection.where is None else s.AllOf((selection.where, where), where.at)
    return replace(selection, where=both)


def find_bounds(window: s.Window, bindings: Bindings, now_ns: int) -> tuple[int, int | None]:
    """Return when a window begins, and before when it ends; None where it has no end."""
    if window.kind == "last":
        return now_ns - int(number(evaluate(window.bounds[0], bindings))), None
    instants = [_instant(bound, bindings) for bound in window.bounds]
    return instants[0], instants[1] if len(instants) > 1 else None


def _instant(node: s.Expression, bindings: Bindings) -> int:
    """Read a point in time, as ISO 8601 writes it; without a time zone it is UTC."""
    found = evaluate(node, bindings)
    if found is None:
        raise NoValue("a point in time has no value")
    ns = read_instant(as_text(found))
    if ns is None:
        raise NoValue(f"`{as_text(found)}` is no point in time such as 2026-01-31T12:00:00Z")
    return ns


def read_instant(text: str) -> int | None:
    """Return an ISO 8601 time in nanoseconds since the Unix epoch, or None if it is none."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - EPOCH) // timedelta(microseconds=1) * 1_000


def show_instant(ns: int) -> str:
    """Write a point in time as ISO 8601 does, to the second."""
    return f"{EPOCH + timedelta(seconds=ns // 1_000_000_000):%Y-%m-%dT%H:%M:%SZ}"
