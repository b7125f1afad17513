"""Questions about stored traces: one number, of groups and steps of time, such as dashboards ask for."""

from __future__ import annotations

from dataclasses import dataclass

from spanproof.query_lang import syntax as s
from spanproof.query_lang.check_claims import ClaimChecker
from spanproof.query_lang.compare import compile_number
from spanproof.query_lang.comparisons import find_in_value
from spanproof.query_lang.constants import Bindings, evaluate, is_constant, number
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.parse import SyntaxProblem, parse_question
from spanproof.query_lang.types import Scope, Types
from spanproof.query_lang.vocabulary import Type

NUMBERS = ("number", "duration", "fraction", "rate", "any")


@dataclass(frozen=True, slots=True)
class Read:
    """A question that was read, or what is wrong with it."""

    question: s.Question | None
    diagnostics: tuple[Diagnostic, ...]


def read_question(text: str) -> Read:
    """Parse and check a question."""
    try:
        question = parse_question(text)
    except SyntaxProblem as problem:
        return Read(None, (problem.diagnostic,))
    checker = ClaimChecker()
    scope = Scope()
    checker.given(question.given, scope)
    type_ = checker.types.of(question.value, scope)
    if is_constant(question.value):
        checker.problem("misplaced", "this asks nothing of the traces", question.value.at)
    elif type_.many:
        checker.problem(
            "not-a-number",
            "this is many values, not one number",
            question.value.at,
            "write `p95(…)` or `avg(…)` around it",
        )
    elif type_.kind not in NUMBERS:
        checker.problem("not-a-number", f"this is {type_.name}, not a number", question.value.at)
    else:
        checker.found += find_in_value(question.value)
    if question.by is not None:
        checker.groups(question.value, question.by, scope)
    if question.step is not None:
        checker.expect(question.step, scope, "duration", "a step")
        if not checker.found and number(evaluate(question.step, Bindings())) < 1:
            checker.problem("out-of-range", "a step takes time", question.step.at)
        if not checker.found and by_trace(question.value):
            checker.problem("misplaced", "`every` goes with spans or calls, not with whole traces", question.step.at)
    found = checker.sorted()
    return Read(None if found else question, found)


def by_trace(value: s.Expression) -> bool:
    """Tell whether a number is made of shares of whole traces, which have no time of their own."""
    return any(isinstance(part, s.Function) and part.name == "critical" for part in s.walk(value))


def compile_question(question: s.Question, traces: str) -> tuple[str, dict[str, object]]:
    """Return the query for the answer, over the traces in the table `traces`; see `compile_number`."""
    step_ns = None if question.step is None else int(number(evaluate(question.step, Bindings())))
    return compile_number(question.value, Bindings(), question.by, step_ns, traces)


def type_of(question: s.Question) -> Type:
    """Return the type of the number that is asked for."""
    return Types().of(question.value, Scope())
