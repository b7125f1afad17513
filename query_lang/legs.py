"""Paths as SQL: each leg is the set of entry spans from which it, and all that hangs on it, can be gone."""

from __future__ import annotations

from spanproof.query_lang import syntax as s
from spanproof.query_lang.conditions import Conditions, Parameters, Row, matches_name, matches_service
from spanproof.query_lang.constants import Bindings
from spanproof.query_lang.plan import Family, Plan
from spanproof.query_lang.selections import joins_of, match_span
from spanproof.query_lang.vocabulary import Type


def compile_path(claim: s.Path, bindings: Bindings) -> Plan:
    """Compile ``path`` and ``no path``: one finding per trace, or one per instance that should not be."""
    parameters = Parameters()
    steps = [_hops("selected")]
    starts = [_leg(leg, claim.leg.arrow, steps, parameters, bindings) for leg in claim.leg.branches]
    steps.append(f"roots AS ({_roots(claim.leg.step, starts, parameters, bindings)})")
    if claim.mode == "no":
        findings = (
            "SELECT trace_id, false AS ok, NULL::BIGINT AS value, [span_key] AS witness, start_ns AS rank,"
            " NULL::BIGINT[] AS note FROM roots"
        )
    else:
        findings = (
            "SELECT sel.trace_id, bool_or(r.span_key IS NOT NULL) AS ok, NULL::BIGINT AS value,"
            " CASE WHEN bool_or(r.span_key IS NOT NULL) THEN [arg_min(r.span_key, r.start_ns)] END AS witness,"
            " coalesce(min(r.start_ns), 0) AS rank, NULL::BIGINT[] AS note"
            " FROM selected sel LEFT JOIN roots r ON r.trace_id = sel.trace_id GROUP BY sel.trace_id"
        )
    family: Family = "none" if claim.mode == "no" else "some"
    return Plan(
        f"WITH RECURSIVE {', '.join(steps)} {findings}", parameters.values, family, Type("nothing"), stable=True
    )


def compile_stops(claim: s.Path, bindings: Bindings, traces: str) -> tuple[str, dict[str, object]]:
    """Return the query that tells, for the traces in a table like ``selected``, what matches each step by itself.

    Rows: ``step`` (numbered as :func:`steps_of` lists them), ``from_entry``, ``to_entry``, ``witness``, ``start_ns``.
    """
    parameters = Parameters()
    selects = []
    for number, (step, arrow) in enumerate(steps_of(claim.leg)):
        if arrow is None:
            entries = _roots(step, [], parameters, bindings, traces)
            selects.append(
                f"SELECT {number} AS step, NULL::BIGINT AS from_entry, span_key AS to_entry, span_key AS witness,"
                f" start_ns FROM ({entries})"
            )
        else:
            selects.append(
                _hop(
                    step,
                    arrow,
                    f"{number} AS step, h.caller_entry AS from_entry, h.callee_entry AS to_entry,"
                    " coalesce(h.callee_entry, h.client_key) AS witness, h.start_ns",
                    parameters,
                    bindings,
                )
            )
    return f"WITH {_hops(traces)} {' UNION ALL '.join(selects)} ORDER BY start_ns, step", parameters.values


def steps_of(leg: s.Leg, arrow: s.Arrow | None = None) -> list[tuple[s.Step, s.Arrow | None]]:
    """Return the steps of a path in the order of its text, each with the arrow that leads to it."""
    steps = [(leg.step, arrow)]
    for branch in leg.branches:
        steps += steps_of(branch, leg.arrow)
    return steps


def _hops(traces: str) -> str:
    return (
        f"hops AS (SELECT e.* FROM {traces} sel JOIN exchanges e ON e.trace_id = sel.trace_id"
        " WHERE sel.trusting OR e.definite)"
    )


def _leg(leg: s.Leg, arrow: s.Arrow | None, steps: list[str], parameters: Parameters, bindings: Bindings) -> str:
    """Add the step that holds the entry spans from which `leg` can be gone; return its name."""
    further = [_leg(branch, leg.arrow, steps, parameters, bindings) for branch in leg.branches]
    name = f"leg{len(steps)}"
    onward = [f"h.callee_entry IN (SELECT entry FROM {branch})" for branch in further]
    matched = _hop(leg.step, arrow or "->", "h.caller_entry AS entry", parameters, bindings, *onward)
    if arrow == "->>":
        matched += (
            f" UNION SELECT h.caller_entry FROM {name} JOIN hops h ON h.callee_entry = {name}.entry WHERE NOT h.async"
        )
    steps.append(f"{name} AS ({matched})")
    return name


def _hop(step: s.Step, arrow: s.Arrow, columns: str, parameters: Parameters, bindings: Bindings, *onward: str) -> str:
    """Select the exchanges that lead to `step`. A peer that sent no span is known by its caller's span."""
    row = Row("span", ("callee",), "callee_place")
    conditions = Conditions(row, parameters, bindings)
    options = []
    for target in step.targets:
        terms = ["true"]
        if target.service is not None:
            terms.append(matches_service("h.callee", target.service, parameters, bindings))
        if target.operation is not None:
            terms.append(matches_name("h.operation", target.operation, parameters, bindings))
        if target.where is not None:
            terms.append(conditions.condition(target.where))
        options.append("(" + " AND ".join(terms) + ")")
    tables = ["hops h"]
    if any(target.where is not None for target in step.targets):
        tables.append("JOIN spans callee ON callee.span_key = coalesce(h.callee_entry, h.client_key)")
        tables.append("JOIN tree callee_place ON callee_place.span_key = callee.span_key")
        tables += joins_of(row)
    where = ["h.async" if arrow == "~>" else "NOT h.async", "(" + " OR ".join(options) + ")", *onward]
    return f"SELECT {columns} FROM {' '.join(tables)} WHERE {' AND '.join(where)}"


def _roots(
    step: s.Step, starts: list[str], parameters: Parameters, bindings: Bindings, traces: str = "selected"
) -> str:
    """Select the entry spans that are the first step, and from which all of `starts` can be gone."""
    row = Row("span", ("s",), "t")
    conditions = Conditions(row, parameters, bindings)
    options = ["(" + " AND ".join(["true", *match_span(target, "s", conditions)]) + ")" for target in step.targets]
    onward = [f"s.span_key IN (SELECT entry FROM {name})" for name in starts]
    tables = (
        f"{traces} sel JOIN tree t ON t.trace_id = sel.trace_id"
        " JOIN spans s ON s.span_key = t.span_key AND s.trace_id = t.trace_id"
    )
    where = " AND ".join(["t.is_entry", "(sel.trusting OR t.definite)", "(" + " OR ".join(options) + ")", *onward])
    return f"SELECT s.trace_id, s.span_key, s.start_ns FROM {' '.join([tables, *joins_of(row)])} WHERE {where}"
