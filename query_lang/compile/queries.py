"""Questions about stored traces: one number, of groups and steps of time, such as dashboards ask for."""

from __future__ import annotations

from dataclasses import dataclass

from spanproof.query_lang.check.claims import ClaimChecker
from spanproof.query_lang.check.comparisons import find_value_problems
from spanproof.query_lang.check.constants import Bindings, evaluate, is_constant, to_decimal
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.check.types import TypeChecker
from spanproof.query_lang.compile.aggregates import compile_number
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.parser import ProofSyntaxError, parse_query
from spanproof.query_lang.syntax.vocabulary import ValueType

RESULT_KINDS = ("number", "duration", "fraction", "rate", "any")


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A question that was read, or what is wrong with it."""

    query: s.MetricQuery | None
    diagnostics: tuple[Diagnostic, ...]


def read_query(text: str) -> ParsedQuery:
    """Parse and check a question."""
    try:
        question = parse_query(text)
    except ProofSyntaxError as problem:
        return ParsedQuery(None, (problem.diagnostic,))
    checker = ClaimChecker()
    scope = Scope()
    checker.check_given(question.given, scope)
    type_ = checker.type_checker.infer(question.value, scope)
    if is_constant(question.value):
        checker.report("misplaced", "this asks nothing of the traces", question.value.at)
    elif type_.is_many:
        checker.report(
            "not-a-number",
            "this is many values, not one number",
            question.value.at,
            "write `p95(…)` or `avg(…)` around it",
        )
    elif type_.kind not in RESULT_KINDS:
        checker.report("not-a-number", f"this is {type_.name}, not a number", question.value.at)
    else:
        checker.diagnostics += find_value_problems(question.value)
    if question.by is not None:
        checker.check_grouping(question.value, question.by, scope)
    if question.step is not None:
        checker.check_constant_of_kind(question.step, scope, "duration", "a step")
        if not checker.diagnostics and to_decimal(evaluate(question.step, Bindings())) < 1:
            checker.report("out-of-range", "a step takes time", question.step.at)
        if not checker.diagnostics and is_by_trace(question.value):
            checker.report("misplaced", "`every` goes with spans or calls, not with whole traces", question.step.at)
    found = checker.list_diagnostics()
    return ParsedQuery(None if found else question, found)


def is_by_trace(value: s.Expression) -> bool:
    """Tell whether a number is made of shares of whole traces, which have no time of their own."""
    return any(isinstance(part, s.Function) and part.name == "critical" for part in s.walk(value))


def compile_query(query: s.MetricQuery, traces: str) -> tuple[str, dict[str, object]]:
    """Return the query for the answer, over the traces in the table `traces`; see `compile_number`."""
    step_ns = None if query.step is None else int(to_decimal(evaluate(query.step, Bindings())))
    return compile_number(query.value, Bindings(), query.by, step_ns, traces)


def infer_query_type(query: s.MetricQuery) -> ValueType:
    """Return the type of the number that is asked for."""
    return TypeChecker().infer(query.value, Scope())
