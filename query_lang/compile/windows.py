"""``given`` as SQL: the traces of a time window."""

from __future__ import annotations

from msgspec.structs import replace

from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, format_constant, to_decimal
from spanproof.query_lang.sql.row_aliases import ALL_TRACES_SQL, SqlParameters
from spanproof.query_lang.sql.selections import select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.instants import parse_instant


def compile_window(given: s.Given, bindings: Bindings, now_ns: int) -> tuple[str, dict[str, object]]:
    """Return the query for the traces that have a span in the window that matches both parts of `given`."""
    parameters = SqlParameters(traces=ALL_TRACES_SQL)
    start = given.start or s.SpanSelection("any", None, None, None, given.at)
    if given.where is not None:
        start = _add_condition(start, given.where)
    rows = select_rows(start, parameters, bindings)
    low, high = compute_bounds(given.window, bindings, now_ns)
    bounds = [f"{rows.start_sql} >= {parameters.add(low)}"]
    if high is not None:
        bounds.append(f"{rows.start_sql} < {parameters.add(high)}")
    return rows.build_select(f"DISTINCT {rows.trace_id_sql} AS trace_id", *bounds), parameters.values


def _add_condition(selection: s.Selection, where: s.Expression) -> s.Selection:
    """Add a condition to a selection. For calls, add it to the callee."""
    if isinstance(selection, s.CallSelection):
        callee = _add_condition(selection.callee, where)
        assert isinstance(callee, s.SpanSelection)  # noqa: S101 (it was one)
        return replace(selection, callee=callee)
    both = where if selection.where is None else s.AllOf((selection.where, where), where.at)
    return replace(selection, where=both)


def compute_bounds(window: s.TimeWindow, bindings: Bindings, now_ns: int) -> tuple[int, int | None]:
    """Return the inclusive start and the exclusive end of a window. The end is None if the window has none."""
    if window.kind == "last":
        return now_ns - int(to_decimal(evaluate(window.bounds[0], bindings))), None
    instants = [_evaluate_instant(bound, bindings) for bound in window.bounds]
    return instants[0], instants[1] if len(instants) > 1 else None


def _evaluate_instant(node: s.Expression, bindings: Bindings) -> int:
    """Evaluate a point in time in ISO 8601 format. Without a time zone it is UTC."""
    constant = evaluate(node, bindings)
    if constant is None:
        raise MissingValue("a point in time has no value")
    ns = parse_instant(format_constant(constant))
    if ns is None:
        raise MissingValue(f"`{format_constant(constant)}` is not a point in time such as 2026-01-31T12:00:00Z")
    return ns
