"""Paths as SQL: each leg is the set of entry spans from which it, and all that hangs on it, can be gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.conditions import (
    ConditionCompiler,
    RowAliases,
    SqlParameters,
    compile_operation_match,
    compile_service_match,
)
from spanproof.query_lang.compile.plan import Family, Plan
from spanproof.query_lang.compile.selections import compile_joins, compile_span_match, make_span_aliases
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

# Of `only path`: what `note` says where it does not hold.
PATH_NOT_MATCHED, OTHER_CALL_MADE = 1, 2


def compile_path(claim: s.Path, bindings: Bindings) -> Plan:
    """Compile a path: one finding per trace, or, for ``no path``, one per instance that should not be."""
    legs = _PathCompiler(SqlParameters(), bindings)
    starts = [legs.add_segment(branch, claim.segment.arrow) for branch in claim.segment.branches]
    legs.ctes.append(f"roots AS ({legs.select_roots(claim.segment.step, starts)})")
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
            legs.ctes.append(f"others AS ({legs.select_other_calls(claim.segment)})")
            others = "(SELECT string_agg(callee, ', ' ORDER BY start_ns) FROM others o WHERE o.trace_id = sel.trace_id)"
        findings = (
            f"SELECT trace_id, taken AND others IS NULL AS ok, others AS value, witness, rank,"
            f" [CASE WHEN NOT taken THEN {PATH_NOT_MATCHED} WHEN others IS NOT NULL THEN {OTHER_CALL_MADE} END] AS note"
            f" FROM (SELECT sel.trace_id, bool_or(r.span_key IS NOT NULL) AS taken, {others} AS others, CASE WHEN"
            " bool_or(r.span_key IS NOT NULL) THEN [arg_min(r.span_key, (r.start_ns, r.span_key))] END AS witness,"
            " coalesce(min(r.start_ns), 0) AS rank"
            " FROM selected sel LEFT JOIN roots r ON r.trace_id = sel.trace_id GROUP BY sel.trace_id)"
        )
    return Plan(
        f"WITH RECURSIVE {', '.join(legs.ctes)} {findings}",
        legs.parameters.values,
        family,
        ValueType("nothing"),
        is_stable=claim.mode != "only",
    )


def compile_hops(claim: s.Path, bindings: Bindings, traces: str) -> tuple[str, dict[str, object]]:
    """Return the query for where a path may come by in the traces of a table like ``selected``.

    A row for each entry span (whose ``async`` is NULL) and each exchange: ``from_entry``, ``to_entry``, ``witness``,
    ``service``, ``operation``, ``async``, ``start_ns``, ``key``, and ``matches``: whether the entry span is the first
    step by itself, or, for each of the others, whether the exchange leads there.
    """
    parameters = SqlParameters(traces=traces)
    (first, _), *others = list_steps(claim.segment)
    entry, callee = make_span_aliases("s", "t"), make_span_aliases("callee", "callee_place")
    is_first = _compile_step_match(first, ConditionCompiler(entry, parameters, bindings))
    leads = [
        _compile_hop_match(step, arrow or "->", ConditionCompiler(callee, parameters, bindings))
        for step, arrow in others
    ]
    places = _compile_callee_joins((step for step, _ in others), callee, parameters)
    sql = (
        "SELECT NULL::BIGINT AS from_entry, t.span_key AS to_entry, t.span_key AS witness, t.service,"
        f" t.name AS operation, NULL AS async, t.start_ns, t.span_key AS key, [{is_first}] AS matches"
        f" FROM {_compile_entry_tables(entry, parameters)}"
        " UNION ALL SELECT h.caller_entry, h.callee_entry, coalesce(h.callee_entry, h.client_key), h.callee,"
        f" h.operation, h.async, h.start_ns, h.attempt_key, [{', '.join(leads)}]::BOOLEAN[]"
        f" FROM {traces} sel JOIN hops h ON h.trace_id = sel.trace_id {places}"
        " WHERE sel.trusting OR h.definite"
    )
    return sql, parameters.values


def list_steps(segment: s.PathSegment, arrow: s.Arrow | None = None) -> list[tuple[s.Step, s.Arrow | None]]:
    """Return the steps of a path in the order of its text, each with the arrow that leads to it."""
    steps = [(segment.step, arrow)]
    for branch in segment.branches:
        steps += list_steps(branch, segment.arrow)
    return steps


@dataclass(slots=True)
class _PathCompiler:
    """Collects the steps of a ``WITH RECURSIVE`` clause; the first is ``made``, all exchanges that count."""

    parameters: SqlParameters
    bindings: Bindings
    ctes: list[str] = field(default_factory=list)
    segment_names: dict[int, str] = field(default_factory=dict)  # of the step for a leg, by the leg's id()

    def __post_init__(self) -> None:
        self.ctes.append(
            f"made AS (SELECT e.* FROM {self.parameters.traces} sel JOIN hops e ON e.trace_id = sel.trace_id"
            " WHERE sel.trusting OR e.definite)"
        )

    def add_segment(self, segment: s.PathSegment, arrow: s.Arrow | None) -> str:
        """Add the step that holds the entry spans from which `leg` can be gone; return its name."""
        further = [self.add_segment(branch, segment.arrow) for branch in segment.branches]
        name = f"leg{len(self.ctes)}"
        onward = [f"h.callee_entry IN (SELECT entry FROM {branch})" for branch in further]
        matched = self.select_hops(segment.step, arrow or "->", "h.caller_entry AS entry", *onward)
        if arrow == "->>":
            matched += (
                f" UNION SELECT h.caller_entry FROM {name} JOIN made h ON h.callee_entry = {name}.entry"
                " WHERE NOT h.async"
            )
        self.ctes.append(f"{name} AS ({matched})")
        self.segment_names[id(segment)] = name
        return name

    def select_hops(self, step: s.Step, arrow: s.Arrow, columns: str, *further: str) -> str:
        """Select the exchanges that lead to `step`."""
        row = make_span_aliases("callee", "callee_place")
        where = [_compile_hop_match(step, arrow, ConditionCompiler(row, self.parameters, self.bindings)), *further]
        joins = _compile_callee_joins([step], row, self.parameters)
        return f"SELECT {columns} FROM made h {joins} WHERE {' AND '.join(where)}"

    def select_roots(self, step: s.Step, starts: list[str]) -> str:
        """Select the entry spans that are the first step, and from which all of `starts` can be gone."""
        row = make_span_aliases("s", "t")
        where = [
            _compile_step_match(step, ConditionCompiler(row, self.parameters, self.bindings)),
            *(f"t.span_key IN (SELECT entry FROM {name})" for name in starts),
        ]
        entries = _compile_entry_tables(row, self.parameters)
        return f"SELECT t.trace_id, t.span_key, t.start_ns FROM {entries} AND {' AND '.join(where)}"

    def select_other_calls(self, segment: s.PathSegment) -> str:
        """Select the exchanges between instrumented services that no instance of the path goes through."""
        self.ctes.append("gone0 AS (SELECT span_key AS entry, NULL::BIGINT AS attempt_key FROM roots)")
        covered = self._add_matched_hops(segment, "gone0")
        known = " UNION ALL ".join(f"SELECT attempt_key FROM {name} WHERE attempt_key IS NOT NULL" for name in covered)
        unseen = f"h.attempt_key NOT IN ({known})" if covered else "true"
        return f"SELECT h.* FROM made h WHERE h.callee_entry IS NOT NULL AND {unseen}"

    def _add_matched_hops(self, segment: s.PathSegment, source: str) -> list[str]:
        """Add, from the entry spans in `came` on, the steps that go through the path; return their names."""
        names = []
        for branch in segment.branches:
            here = f"(SELECT entry FROM {source} WHERE entry IS NOT NULL)"
            onward = [
                f"h.callee_entry IN (SELECT entry FROM {self.segment_names[id(each)]})" for each in branch.branches
            ]
            columns = "h.callee_entry AS entry, h.attempt_key"
            if segment.arrow == "->>":
                reach, between = f"reach{len(self.ctes)}", f"between{len(self.ctes)}"
                self.ctes.append(
                    f"{reach} AS (SELECT entry FROM {source} WHERE entry IS NOT NULL UNION SELECT h.callee_entry"
                    f" FROM {reach} JOIN made h ON h.caller_entry = {reach}.entry"
                    " WHERE NOT h.async AND h.callee_entry IS NOT NULL)"
                )
                self.ctes.append(
                    f"{between} AS (SELECT h.callee_entry AS entry, h.attempt_key FROM made h WHERE NOT h.async"
                    f" AND h.caller_entry IN (SELECT entry FROM {reach})"
                    f" AND h.callee_entry IN (SELECT entry FROM {self.segment_names[id(branch)]}))"
                )
                names.append(between)
                here = f"(SELECT entry FROM {reach})"
            name = f"gone{len(self.ctes)}"
            gone = self.select_hops(branch.step, segment.arrow or "->", columns, f"h.caller_entry IN {here}", *onward)
            self.ctes.append(f"{name} AS ({gone})")
            names += [name, *self._add_matched_hops(branch, name)]
        return names


def _compile_step_match(step: s.Step, conditions: ConditionCompiler) -> str:
    """Return the SQL that tells whether the entry span `t` is a step."""
    options = [" AND ".join(["true", *compile_span_match(target, "t", conditions)]) for target in step.targets]
    return "(" + " OR ".join(options) + ")"


def _compile_hop_match(step: s.Step, arrow: s.Arrow, conditions: ConditionCompiler) -> str:
    """Return the SQL that tells whether the exchange `h` leads to a step."""
    options = []
    for target in step.targets:
        terms = ["h.async" if arrow == "~>" else "NOT h.async"]
        if target.service is not None:
            terms.append(compile_service_match("h.callee", target.service, conditions.parameters, conditions.bindings))
        if target.operation is not None:
            terms.append(
                compile_operation_match("h.operation", target.operation, conditions.parameters, conditions.bindings)
            )
        if target.where is not None:
            terms.append(conditions.compile_condition(target.where))
        options.append(" AND ".join(terms))
    return "(" + " OR ".join(options) + ")"


def _compile_entry_tables(row: RowAliases, parameters: SqlParameters) -> str:
    """Return the tables in which the entry spans `t` stand that count, and what the conditions about these need."""
    joins = " ".join(compile_joins(row, parameters))
    traces = f"{parameters.traces} sel JOIN topology t ON t.trace_id = sel.trace_id"
    return f"{traces} {joins} WHERE t.is_entry AND (sel.trusting OR t.definite)"


def _compile_callee_joins(steps: Iterable[s.Step], row: RowAliases, parameters: SqlParameters) -> str:
    """Return the joins that the conditions of steps about the callees of the exchanges `h` need.

    A peer that sent no span is known by its caller's span.
    """
    if all(target.where is None for step in steps for target in step.targets):
        return ""
    place = f"JOIN topology {row.alias} ON {row.alias}.span_key = coalesce(h.callee_entry, h.client_key)"
    return " ".join([place, *compile_joins(row, parameters)])
