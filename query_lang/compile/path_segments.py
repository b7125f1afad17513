"""Paths as SQL: each path segment is the set of entry spans from which it and all its branches match."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import ConditionCompiler, compile_operation_match, compile_service_match
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Family, Plan
from spanproof.query_lang.sql.row_aliases import RowAliases, SqlParameters, compile_joins, make_span_aliases
from spanproof.query_lang.sql.selections import compile_span_match, is_stable
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

# Reasons in `note` why `only path` does not hold.
PATH_NOT_MATCHED, OTHER_CALL_MADE = 1, 2


def compile_path(claim: s.Path, bindings: Bindings) -> Plan:
    """Compile a path: one finding per trace or, for ``no path``, one per unwanted instance."""
    compiler = _PathCompiler(SqlParameters(reading=bindings.reading), bindings)
    starts = [compiler.add_segment(branch, claim.segment.arrow) for branch in claim.segment.branches]
    compiler.ctes.append(f"roots AS ({compiler.select_roots(claim.segment.step, starts)})")
    family: Family = "some"
    if claim.mode == "no":
        family = "none"
        findings = (
            f"SELECT trace_id, false AS ok, {SQL.null('text')} AS value, [span_key] AS witness, start_ns AS rank,"
            f" {SQL.null('integers')} AS note FROM roots"
        )
    else:
        others = SQL.null("text")
        if claim.mode == "only":
            compiler.ctes.append(f"others AS ({compiler.select_other_calls(claim.segment)})")
            callees = SQL.join_texts("callee", ", ", "start_ns")
            others = f"(SELECT {callees} FROM others o WHERE o.trace_id = sel.trace_id)"
        has_root = SQL.any_true("r.span_key IS NOT NULL")
        findings = (
            f"SELECT trace_id, matched AND others IS NULL AS ok, others AS value, witness, rank,"
            f" [CASE WHEN NOT matched THEN {PATH_NOT_MATCHED} WHEN others IS NOT NULL THEN {OTHER_CALL_MADE} END]"
            f" AS note FROM (SELECT sel.trace_id, {has_root} AS matched, {others} AS others,"
            " CASE WHEN"
            f" {has_root} THEN [{SQL.first_by('r.span_key', '(r.start_ns, r.span_key)')}] END AS witness,"
            " coalesce(min(r.start_ns), 0) AS rank"
            " FROM selected sel LEFT JOIN roots r ON r.trace_id = sel.trace_id GROUP BY sel.trace_id)"
        )
    return Plan(
        f"WITH RECURSIVE {', '.join(compiler.ctes)} {findings}",
        compiler.parameters.values,
        family,
        ValueType("nothing"),
        is_stable=claim.mode != "only" and has_stable_steps(claim),
    )


def compile_hops(claim: s.Path, bindings: Bindings, traces: str) -> tuple[str, dict[str, object]]:
    """Return the query for the hops that a path can use, in the traces of a table like ``selected``.

    There is one row per entry span (with ``async`` NULL) and one per attempt: ``from_entry``, ``to_entry``,
    ``witness``, ``service``, ``operation``, ``async``, ``start_ns``, ``key`` and ``matches``. ``matches`` tells whether
    the entry span is the first step, or, for each of the other steps, whether the attempt leads to it.
    """
    parameters = SqlParameters(traces=traces, reading=bindings.reading)
    (first, _), *others = list_steps(claim.segment)
    entry, callee = make_span_aliases("s", "t"), make_span_aliases("callee", "callee_topology")
    is_first = _compile_step_match(first, ConditionCompiler(entry, parameters, bindings))
    leads_to = [
        _compile_hop_match(step, arrow or "->", ConditionCompiler(callee, parameters, bindings))
        for step, arrow in others
    ]
    matches = SQL.cast(f"[{', '.join(leads_to)}]", "booleans")
    joins = _compile_callee_joins((step for step, _ in others), callee, parameters)
    sql = (
        f"SELECT {SQL.null('integer')} AS from_entry, t.span_key AS to_entry, t.span_key AS witness, t.service,"
        f" t.name AS operation, NULL AS async, t.start_ns, t.span_key AS key, [{is_first}] AS matches"
        f" FROM {_compile_entry_tables(entry, parameters)}"
        " UNION ALL SELECT h.caller_entry, h.callee_entry, coalesce(h.callee_entry, h.client_key), h.callee,"
        f" h.operation, h.async, h.start_ns, h.attempt_key, {matches}"
        f" FROM {traces} sel JOIN hops h ON h.trace_id = sel.trace_id {joins}"
        " WHERE sel.trusting OR h.definite"
    )
    return sql, parameters.values


def has_stable_steps(claim: s.Path) -> bool:
    """Return whether an entry span that matches a step still matches it when more spans arrive."""
    return all(is_stable(target) for step, _ in list_steps(claim.segment) for target in step.targets)


def list_steps(segment: s.PathSegment, arrow: s.Arrow | None = None) -> list[tuple[s.Step, s.Arrow | None]]:
    """Return the steps of a path in the order of its text, each with the arrow before it."""
    steps = [(segment.step, arrow)]
    for branch in segment.branches:
        steps += list_steps(branch, segment.arrow)
    return steps


class _PathCompiler(Struct):
    """Compiler of a path to the CTEs of a ``WITH RECURSIVE`` clause.

    The first CTE, ``counted``, has all attempts that count.
    """

    parameters: SqlParameters
    bindings: Bindings
    ctes: list[str] = field(default_factory=list)
    segment_names: dict[int, str] = field(default_factory=dict)  # names of CTEs by the id() of the segment

    def __post_init__(self) -> None:
        self.ctes.append(
            f"counted AS (SELECT e.* FROM {self.parameters.traces} sel JOIN hops e ON e.trace_id = sel.trace_id"
            " WHERE sel.trusting OR e.definite)"
        )

    def add_segment(self, segment: s.PathSegment, arrow: s.Arrow | None) -> str:
        """Add the CTE of the entry spans from which `segment` matches. Return its name."""
        branches = [self.add_segment(branch, segment.arrow) for branch in segment.branches]
        name = f"segment{len(self.ctes)}"
        continuations = [f"h.callee_entry IN (SELECT entry FROM {branch})" for branch in branches]
        hops = self.select_hops(segment.step, arrow or "->", "h.caller_entry AS entry", *continuations)
        if arrow == "->>":
            hops += (
                f" UNION SELECT h.caller_entry FROM {name} JOIN counted h ON h.callee_entry = {name}.entry"
                " WHERE NOT h.async"
            )
        self.ctes.append(f"{name} AS ({hops})")
        self.segment_names[id(segment)] = name
        return name

    def select_hops(self, step: s.Step, arrow: s.Arrow, columns: str, *conditions: str) -> str:
        """Return the query for the attempts that lead to `step`."""
        row = make_span_aliases("callee", "callee_topology")
        where = [_compile_hop_match(step, arrow, ConditionCompiler(row, self.parameters, self.bindings)), *conditions]
        joins = _compile_callee_joins([step], row, self.parameters)
        return f"SELECT {columns} FROM counted h {joins} WHERE {' AND '.join(where)}"

    def select_roots(self, step: s.Step, starts: list[str]) -> str:
        """Return the query for the entry spans that match the first step and are in all CTEs of `starts`."""
        row = make_span_aliases("s", "t")
        where = [
            _compile_step_match(step, ConditionCompiler(row, self.parameters, self.bindings)),
            *(f"t.span_key IN (SELECT entry FROM {name})" for name in starts),
        ]
        entries = _compile_entry_tables(row, self.parameters)
        return f"SELECT t.trace_id, t.span_key, t.start_ns FROM {entries} AND {' AND '.join(where)}"

    def select_other_calls(self, segment: s.PathSegment) -> str:
        """Return the query for the attempts between instrumented services that belong to no instance of the path."""
        self.ctes.append(f"matched0 AS (SELECT span_key AS entry, {SQL.null('integer')} AS attempt_key FROM roots)")
        covered = self._add_matched_hops(segment, "matched0")
        known_keys = " UNION ALL ".join(
            f"SELECT attempt_key FROM {name} WHERE attempt_key IS NOT NULL" for name in covered
        )
        is_unknown = f"h.attempt_key NOT IN ({known_keys})" if covered else "true"
        return f"SELECT h.* FROM counted h WHERE h.callee_entry IS NOT NULL AND {is_unknown}"

    def _add_matched_hops(self, segment: s.PathSegment, source: str) -> list[str]:
        """Add the CTEs of the attempts that match the path from the entry spans in `source`. Return their names."""
        names = []
        for branch in segment.branches:
            starts = f"(SELECT entry FROM {source} WHERE entry IS NOT NULL)"
            continuations = [
                f"h.callee_entry IN (SELECT entry FROM {self.segment_names[id(next_branch)]})"
                for next_branch in branch.branches
            ]
            columns = "h.callee_entry AS entry, h.attempt_key"
            if segment.arrow == "->>":
                reach, between = f"reach{len(self.ctes)}", f"between{len(self.ctes)}"
                self.ctes.append(
                    f"{reach} AS (SELECT entry FROM {source} WHERE entry IS NOT NULL UNION SELECT h.callee_entry"
                    f" FROM {reach} JOIN counted h ON h.caller_entry = {reach}.entry"
                    " WHERE NOT h.async AND h.callee_entry IS NOT NULL)"
                )
                self.ctes.append(
                    f"{between} AS (SELECT h.callee_entry AS entry, h.attempt_key FROM counted h WHERE NOT h.async"
                    f" AND h.caller_entry IN (SELECT entry FROM {reach})"
                    f" AND h.callee_entry IN (SELECT entry FROM {self.segment_names[id(branch)]}))"
                )
                names.append(between)
                starts = f"(SELECT entry FROM {reach})"
            name = f"matched{len(self.ctes)}"
            hops = self.select_hops(
                branch.step, segment.arrow or "->", columns, f"h.caller_entry IN {starts}", *continuations
            )
            self.ctes.append(f"{name} AS ({hops})")
            names += [name, *self._add_matched_hops(branch, name)]
        return names


def _compile_step_match(step: s.Step, conditions: ConditionCompiler) -> str:
    """Return the SQL that tests whether the entry span `t` matches a step."""
    options = [" AND ".join(["true", *compile_span_match(target, "t", conditions)]) for target in step.targets]
    return "(" + " OR ".join(options) + ")"


def _compile_hop_match(step: s.Step, arrow: s.Arrow, conditions: ConditionCompiler) -> str:
    """Return the SQL that tests whether the attempt `h` leads to a step."""
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
    """Return the FROM clause of the entry spans `t` that count, with the joins that conditions about them need."""
    joins = " ".join(compile_joins(row, parameters))
    traces = f"{parameters.traces} sel JOIN topology t ON t.trace_id = sel.trace_id"
    return f"{traces} {joins} WHERE t.is_entry AND (sel.trusting OR t.definite)"


def _compile_callee_joins(steps: Iterable[s.Step], row: RowAliases, parameters: SqlParameters) -> str:
    """Return the joins that the conditions of steps on the callees of the attempts `h` need.

    A peer without spans is represented by the span of its caller.
    """
    if all(target.where is None for step in steps for target in step.targets):
        return ""
    topology_join = f"JOIN topology {row.alias} ON {row.alias}.span_key = coalesce(h.callee_entry, h.client_key)"
    return " ".join([topology_join, *compile_joins(row, parameters)])
