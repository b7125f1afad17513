"""Queries over stored traces, as used by dashboards: one number per group and time step."""

from __future__ import annotations

from msgspec import Struct

from spanproof.query_lang.check.claims import ClaimChecker
from spanproof.query_lang.check.comparisons import find_value_problems
from spanproof.query_lang.check.constants import Bindings, evaluate, is_constant, to_decimal
from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.check.types import TypeChecker
from spanproof.query_lang.compile.aggregates import compile_number
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.parser import ProofSyntaxError, parse_query
from spanproof.query_lang.syntax.vocabulary import ValueType

RESULT_KINDS = ("number", "duration", "fraction", "rate", "any")


class ParsedQuery(Struct, frozen=True):
    """Parsed query, or its problems."""

    query: s.MetricQuery | None
    diagnostics: tuple[Diagnostic, ...]


def read_query(text: str) -> ParsedQuery:
    """Parse and check a query."""
    try:
        query = parse_query(text)
    except ProofSyntaxError as error:
        return ParsedQuery(None, (error.diagnostic,))
    checker = ClaimChecker()
    scope = Scope()
    checker.check_given(query.given, scope)
    type_ = checker.type_checker.infer(query.value, scope)
    if is_constant(query.value):
        checker.report("misplaced", "this value does not depend on the traces", query.value.at)
    elif type_.is_many:
        checker.report(
            "not-a-number",
            "this is many values, not one number",
            query.value.at,
            "write `p95(…)` or `avg(…)` around it",
        )
    elif type_.kind not in RESULT_KINDS:
        checker.report("not-a-number", f"this is {type_.name}, not a number", query.value.at)
    else:
        checker.diagnostics += find_value_problems(query.value)
    if query.by:
        checker.check_grouping(query.value, query.by, scope)
    if query.step is not None:
        checker.check_constant_of_kind(query.step, scope, "duration", "a step")
        if not checker.diagnostics and to_decimal(evaluate(query.step, Bindings())) < 1:
            checker.report("out-of-range", "a step is at least 1ns", query.step.at)
        if not checker.diagnostics and is_by_trace(query.value):
            checker.report("misplaced", "`every` groups spans or calls, not whole traces", query.step.at)
    problems = checker.list_diagnostics()
    return ParsedQuery(None if problems else query, problems)


def is_by_trace(value: s.Expression) -> bool:
    """Return whether a number aggregates values of whole traces, which cannot be assigned to a time step."""
    return any(isinstance(part, s.Function) and part.name == "critical" for part in s.walk(value))


def compile_query(query: s.MetricQuery, traces: str, reading: Reading) -> tuple[str, dict[str, object]]:
    """Return the SQL of a query over the traces in the table `traces`. See `compile_number`."""
    bindings = Bindings(reading=reading)
    step_ns = None if query.step is None else int(to_decimal(evaluate(query.step, bindings)))
    return compile_number(query.value, bindings, query.by, step_ns, traces)


def infer_query_type(query: s.MetricQuery) -> ValueType:
    """Return the type of the number that a query yields."""
    return TypeChecker().infer(query.value, Scope())
