"""Hints at what exists, where a claim names what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spanproof.assertions.explain.text_formatting import format_list, matches_glob
from spanproof.assertions.findings.path_search import resolve_service
from spanproof.query_lang.check.constants import Bindings, interpolate
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import find_nearest

if TYPE_CHECKING:
    import duckdb


def suggest_nearest(
    connection: duckdb.DuckDBPyConnection, selections: list[s.Selection], bindings: Bindings
) -> str | None:
    """Return a hint at the existing services or operations nearest to those in the claim that do not exist."""
    rows = connection.execute(
        "SELECT DISTINCT e.callee, e.operation FROM attempts e SEMI JOIN selected USING (trace_id)"
        " UNION SELECT DISTINCT s.service, s.name FROM spans s SEMI JOIN selected USING (trace_id)"
    ).fetchall()
    operations_by_service: dict[str, set[str]] = {}
    for service, operation in rows:
        operations_by_service.setdefault(service, set()).add(operation)
    if not operations_by_service:
        return "no span of these traces has arrived"
    for part in selections:
        targets = (part.caller, part.callee) if isinstance(part, s.CallSelection) else (part,)
        for target in targets:
            hint = _suggest_for_target(target, operations_by_service, bindings)
            if hint is not None:
                return hint
        hint = _suggest_callees(connection, part, bindings) if isinstance(part, s.CallSelection) else None
        if hint is not None:
            return hint
    return None


def _suggest_for_target(
    target: s.SpanSelection, operations_by_service: dict[str, set[str]], bindings: Bindings
) -> str | None:
    """Return a hint if the target's service, or the operation of that service, does not exist."""
    service = resolve_service(target, bindings)
    if service is None:
        return None
    if service not in operations_by_service:
        near = find_nearest(service, operations_by_service)
        names = format_list(near or sorted(operations_by_service))
        return f"`{service}` is not among the observed services: {'nearest ' if near else ''}{names}"
    if target.operation is None:
        return None
    expected = interpolate(target.operation, bindings, keep_unknown=True)
    if any(matches_glob(expected, operation) for operation in operations_by_service[service]):
        return None
    return f"`{service}` has no `{expected}`: {format_list(sorted(operations_by_service[service]))}"


def _suggest_callees(connection: duckdb.DuckDBPyConnection, call: s.CallSelection, bindings: Bindings) -> str | None:
    """Return a hint at what a caller called, if it did not call the callee."""
    caller, callee = (resolve_service(target, bindings) for target in (call.caller, call.callee))
    if caller is None or callee is None:
        return None
    rows = connection.execute(
        "SELECT DISTINCT callee FROM attempts SEMI JOIN selected USING (trace_id) WHERE caller = $caller",
        {"caller": caller},
    ).fetchall()
    callees = sorted(str(name) for (name,) in rows)
    if callee in callees:
        return None
    return f"`{caller}` called {format_list(callees)}" if callees else f"`{caller}` called no service"
