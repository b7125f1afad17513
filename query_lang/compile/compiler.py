"""Compiler of checked claims to plans."""

from __future__ import annotations

from spanproof.query_lang.check.constants import Bindings, MissingValue
from spanproof.query_lang.check.operands import compares_value_sets
from spanproof.query_lang.check.types import TypeChecker
from spanproof.query_lang.compile.aggregates import compile_comparison
from spanproof.query_lang.compile.circuit import compile_circuit
from spanproof.query_lang.compile.critical_path import compile_budget
from spanproof.query_lang.compile.order import compile_before
from spanproof.query_lang.compile.path_segments import compile_path
from spanproof.query_lang.compile.resilience import compile_fallback, compile_no_retry, compile_retry
from spanproof.query_lang.compile.timeout import compile_timeout
from spanproof.query_lang.compile.value_sets import compile_value_sets
from spanproof.query_lang.sql.conditions import find_subject
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.query_lang.sql.selections import SelectedRows, find_row_kind, is_stable, select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType


def compile_claim(expectation: s.Expectation, bindings: Bindings, *, numbers_from: str = "selected") -> Plan:
    """Compile a claim that has passed :mod:`spanproof.query_lang.check.checker`.

    `numbers_from` is the table of the traces that numbers are aggregated from.
    """
    match expectation.claim:
        case s.ComparisonClaim(condition=s.Compare() as condition) if compares_value_sets(condition):
            return compile_value_sets(condition, bindings)
        case s.ComparisonClaim(condition=(s.Compare() | s.OneOf()) as condition):
            per_trace = expectation.share is not None
            return compile_comparison(condition, bindings, per_trace=per_trace, by=expectation.by, traces=numbers_from)
        case s.Every() | s.Some() | s.No() as claim:
            return _compile_quantified(claim, bindings, expectation.by)
        case s.Path() as claim:
            return compile_path(claim, bindings)
        case s.Retry() as claim:
            return compile_retry(claim, bindings)
        case s.NoRetry() as claim:
            return compile_no_retry(claim, bindings)
        case s.Fallback() as claim:
            return compile_fallback(claim, bindings)
        case s.Timeout() as claim:
            return compile_timeout(claim, bindings)
        case s.Circuit() as claim:
            return compile_circuit(claim, bindings)
        case s.Before() as claim:
            return compile_before(claim, bindings)
        case s.Budget() as claim:
            return compile_budget(claim, bindings)
        case s.Contract():
            raise MissingValue("there is no response to judge")
        case claim:
            raise AssertionError(f"{type(claim).__name__} passed the check and cannot be compiled")


def _compile_quantified(claim: s.Every | s.Some | s.No, bindings: Bindings, by: tuple[s.Name, ...]) -> Plan:
    parameters = SqlParameters(reading=bindings.reading)
    rows = select_rows(claim.selection, parameters, bindings)
    holds = rows.condition_compiler.compile_condition(claim.condition) if claim.condition is not None else "true"
    value, shown = _compile_observed_value(claim, rows, bindings)
    stable = is_stable(claim.selection, claim.condition)
    columns = (
        f"{value} AS value, {rows.witness_sql} AS witness, {rows.start_sql} AS rank, {SQL.null('integers')} AS note,"
        f" {rows.trace_id_sql} AS trace_id"
    )
    if isinstance(claim, s.Every):
        select = rows.build_select(f"{holds} AS ok, {columns}, {rows.compile_group_key(by)} AS grp")
        return Plan(select, parameters.values, "all", shown, stable)
    matches = rows.build_select(columns, holds)
    if isinstance(claim, s.No):
        return Plan(f"SELECT *, false AS ok FROM ({matches})", parameters.values, "none", shown, stable)
    fields = "{'value': f.value, 'witness': f.witness}"
    sql = (
        f"WITH matches AS ({matches}) SELECT trace_id, rank IS NOT NULL AS ok, first.value, first.witness,"
        f" coalesce(rank, 0) AS rank, {SQL.null('integers')} AS note FROM (SELECT sel.trace_id, min(f.rank) AS rank,"
        f" {SQL.first_by(fields, '(f.rank, f.witness, f.value)')} AS first"
        " FROM selected sel LEFT JOIN matches f ON f.trace_id = sel.trace_id GROUP BY sel.trace_id)"
    )
    return Plan(sql, parameters.values, "some", shown, stable)


def _compile_observed_value(
    claim: s.Every | s.Some | s.No, rows: SelectedRows, bindings: Bindings
) -> tuple[str, ValueType]:
    """Return the SQL and type of the first value that the condition reads, for display."""
    subject = find_subject(claim.condition) if claim.condition is not None else None
    if subject is None:
        return SQL.null("text"), ValueType("nothing")
    type_ = TypeChecker().infer(subject, bindings.scope.with_row(find_row_kind(claim.selection)))
    return rows.condition_compiler.compile_value(subject).sql, type_
