"""Paths as SQL: each leg is the set of entry spans from which it, and all that hangs on it, can be gone."""

from __future__ import annotations

from dataclasses import dataclass, field

from spanproof.query_lang import syntax as s
from spanproof.query_lang.conditions import Conditions, Parameters, matches_name, matches_service
from spanproof.query_lang.constants import Bindings
from spanproof.query_lang.plan import Family, Plan
from spanproof.query_lang.selections import joins_of, match_span, span_row
from spanproof.query_lang.vocabulary import Type

# Of `only path`: what `note` says where it does not hold.
NOT_TAKEN, OTHER_CALL = 1, 2


def compile_path(claim: s.Path, bindings: Bindings) -> Plan:
    """Compile a path: one finding per trace, or, for ``no path``, one per instance that should not be."""
    legs = _Legs(Parameters(), bindings)
    starts = [legs.add(branch, claim.leg.arrow) for branch in claim.leg.branches]
    legs.steps.append(f"roots AS ({legs.roots(claim.leg.step, starts)})")
    family: Family = "some"
    if claim.mode == "no":
        family = "none"
        findings = (
            "SELECT trace_id, false AS ok, NULL::VARCHAR AS value, [span_key] AS witness, start_ns AS rank,"
            " NULL::BIGINT[] AS note FROM roots"
        )
    else:
        others = "NULL::VARCHAR"
        if claim.mode == "only":
            legs.steps.append(f"others AS ({legs.others(claim.leg)})")
            others = "(SELECT string_agg(callee, ', ' ORDER BY start_ns) FROM others o WHERE o.trace_id = sel.trace_id)"
        findings = (
            f"SELECT trace_id, taken AND others IS NULL AS ok, others AS value, witness, rank,"
            f" [CASE WHEN NOT taken THEN {NOT_TAKEN} WHEN others IS NOT NULL THEN {OTHER_CALL} END] AS note FROM ("
            f"SELECT sel.trace_id, bool_or(r.span_key IS NOT NULL) AS taken, {others} AS others,"
            " CASE WHEN bool_or(r.span_key IS NOT NULL) THEN [arg_min(r.span_key, r.start_ns)] END AS witness,"
            " coalesce(min(r.start_ns), 0) AS rank"
            " FROM selected sel LEFT JOIN roots r ON r.trace_id = sel.trace_id GROUP BY sel.trace_id)"
        )
    return Plan(
        f"WITH RECURSIVE {', '.join(legs.steps)} {findings}",
        legs.parameters.values,
        family,
        Type("nothing"),
        stable=claim.mode != "only",
    )


def compile_stops(claim: s.Path, bindings: Bindings, traces: str) -> tuple[str, dict[str, object]]:
    """Return the query that tells, for the traces in a table like ``selected``, what matches each step by itself.

    Rows: ``step`` (numbered as :func:`steps_of` lists them), ``from_entry``, ``to_entry``, ``witness``, ``start_ns``.
    """
    legs = _Legs(Parameters(traces=traces), bindings)
    selects = []
    for number, (step, arrow) in enumerate(steps_of(claim.leg)):
        if arrow is None:
            selects.append(
                f"SELECT {number} AS step, NULL::BIGINT AS from_entry, span_key AS to_entry, span_key AS witness,"
                f" start_ns FROM ({legs.roots(step, [])})"
            )
        else:
            columns = (
                f"{number} AS step, h.caller_entry AS from_entry, h.callee_entry AS to_entry,"
                " coalesce(h.callee_entry, h.client_key) AS witness, h.start_ns"
            )
            selects.append(legs.hops(step, arrow, columns))
    sql = f"WITH {', '.join(legs.steps)} {' UNION ALL '.join(selects)} ORDER BY start_ns, step"
    return sql, legs.parameters.values


def steps_of(leg: s.Leg, arrow: s.Arrow | None = None) -> list[tuple[s.Step, s.Arrow | None]]:
    """Return the steps of a path in the order of its text, each with the arrow that leads to it."""
    steps = [(leg.step, arrow)]
    for branch in leg.branches:
        steps += steps_of(branch, leg.arrow)
    return steps


@dataclass(slots=True)
class _Legs:
    """Collects the steps of a ``WITH RECURSIVE`` clause; the first is ``made``, all exchanges that count."""

    parameters: Parameters
    bindings: Bindings
    steps: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # of the step for a leg, by the leg's id()

    def __post_init__(self) -> None:
        self.steps.append(
            f"made AS (SELECT e.* FROM {self.parameters.traces} sel JOIN hops e ON e.trace_id = sel.trace_id"
            " WHERE sel.trusting OR e.definite)"
        )

    def add(self, leg: s.Leg, arrow: s.Arrow | None) -> str:
        """Add the step that holds the entry spans from which `leg` can be gone; return its name."""
        further = [self.add(branch, leg.arrow) for branch in leg.branches]
        name = f"leg{len(self.steps)}"
        onward = [f"h.callee_entry IN (SELECT entry FROM {branch})" for branch in further]
        matched = self.hops(leg.step, arrow or "->", "h.caller_entry AS entry", *onward)
        if arrow == "->>":
            matched += (
                f" UNION SELECT h.caller_entry FROM {name} JOIN made h ON h.callee_entry = {name}.entry"
                " WHERE NOT h.async"
            )
        self.steps.append(f"{name} AS ({matched})")
        self.names[id(leg)] = name
        return name

    def hops(self, step: s.Step, arrow: s.Arrow, columns: str, *further: str) -> str:
        """Select the exchanges that lead to `step`. A peer that sent no span is known by its caller's span."""
        row = span_row("callee", "callee_place")
        conditions = Conditions(row, self.parameters, self.bindings)
        options = []
        for target in step.targets:
            terms = ["true"]
            if target.service is not None:
                terms.append(matches_service("h.callee", target.service, self.parameters, self.bindings))
            if target.operation is not None:
                terms.append(matches_name("h.operation", target.operation, self.parameters, self.bindings))
            if target.where is not None:
                terms.append(conditions.condition(target.where))
            options.append("(" + " AND ".join(terms) + ")")
        tables = ["made h"]
        if any(target.where is not None for target in step.targets):
            tables.append("JOIN tree callee_place ON callee_place.span_key = coalesce(h.callee_entry, h.client_key)")
            tables += joins_of(row, self.parameters)
        where = ["h.async" if arrow == "~>" else "NOT h.async", "(" + " OR ".join(options) + ")", *further]
        return f"SELECT {columns} FROM {' '.join(tables)} WHERE {' AND '.join(where)}"

    def roots(self, step: s.Step, starts: list[str]) -> str:
        """Select the entry spans that are the first step, and from which all of `starts` can be gone."""
        row = span_row("s", "t")
        conditions = Conditions(row, self.parameters, self.bindings)
        options = ["(" + " AND ".join(["true", *match_span(target, "t", conditions)]) + ")" for target in step.targets]
        onward = [f"t.span_key IN (SELECT entry FROM {name})" for name in starts]
        tables = [
            f"{self.parameters.traces} sel JOIN tree t ON t.trace_id = sel.trace_id",
            *joins_of(row, self.parameters),
        ]
        where = ["t.is_entry", "(sel.trusting OR t.definite)", "(" + " OR ".join(options) + ")", *onward]
        return f"SELECT t.trace_id, t.span_key, t.start_ns FROM {' '.join(tables)} WHERE {' AND '.join(where)}"

    def others(self, leg: s.Leg) -> str:
        """Select the exchanges between instrumented services that no instance of the path goes through."""
        self.steps.append("gone0 AS (SELECT span_key AS entry, NULL::BIGINT AS exchange_key FROM roots)")
        covered = self._go(leg, "gone0")
        known = " UNION ALL ".join(
            f"SELECT exchange_key FROM {name} WHERE exchange_key IS NOT NULL" for name in covered
        )
        unseen = f"h.exchange_key NOT IN ({known})" if covered else "true"
        return f"SELECT h.* FROM made h WHERE h.callee_entry IS NOT NULL AND {unseen}"

    def _go(self, leg: s.Leg, came: str) -> list[str]:
        """Add, from the entry spans in `came` on, the steps that go through the path; return their names."""
        names = []
        for branch in leg.branches:
            here = f"(SELECT entry FROM {came} WHERE entry IS NOT NULL)"
            onward = [f"h.callee_entry IN (SELECT entry FROM {self.names[id(each)]})" for each in branch.branches]
            columns = "h.callee_entry AS entry, h.exchange_key"
            if leg.arrow == "->>":
                reach, between = f"reach{len(self.steps)}", f"between{len(self.steps)}"
                self.steps.append(
                    f"{reach} AS (SELECT entry FROM {came} WHERE entry IS NOT NULL UNION SELECT h.callee_entry"
                    f" FROM {reach} JOIN made h ON h.caller_entry = {reach}.entry"
                    " WHERE NOT h.async AND h.callee_entry IS NOT NULL)"
                )
                self.steps.append(
                    f"{between} AS (SELECT h.callee_entry AS entry, h.exchange_key FROM made h WHERE NOT h.async"
                    f" AND h.caller_entry IN (SELECT entry FROM {reach})"
                    f" AND h.callee_entry IN (SELECT entry FROM {self.names[id(branch)]}))"
                )
                names.append(between)
                here = f"(SELECT entry FROM {reach})"
            name = f"gone{len(self.steps)}"
            gone = self.hops(branch.step, leg.arrow or "->", columns, f"h.caller_entry IN {here}", *onward)
            self.steps.append(f"{name} AS ({gone})")
            names += [name, *self._go(branch, name)]
        return names
