"""Type rules of operators: comparison, search and arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.vocabulary import ValueType

NUMERIC_KINDS: Final = frozenset({"number", "duration", "fraction", "points", "rate", "any"})


def find_comparison_problems(node: s.Compare, left: ValueType, right: ValueType) -> Iterator[Diagnostic]:
    """Yield the problems of comparing operands of these types."""
    match node.operator:
        case "=~" | "!~":
            yield from _find_pattern_problems(node, left, right)
        case "contains":
            if left.kind not in ("text", "any"):
                yield _make_type_mismatch(f"`contains` searches a text or list, not {left.name}", node.left.at)
            if right.kind not in ("text", "any"):
                yield _make_type_mismatch(f"`contains` searches for a text, not {right.name}", node.right.at)
        case operator:
            yield from find_equality_problems(node, left, right)
            if operator in ("<", "<=", ">", ">=") and "boolean" in (left.kind, right.kind):
                yield _make_type_mismatch("conditions have no order", node.at)
    if left.is_many and right.is_many and not compares_value_sets(node):
        help_ = "aggregate one, as in `max(…)`; or compare the sets of two `values(…)` with `==` or `!=`"
        yield Diagnostic("two-bags", "both sides hold many values", node.at, help_)


def compares_value_sets(node: object) -> bool:
    """Return whether `node` compares the sets of values of two selections."""
    return (
        isinstance(node, s.Compare)
        and node.operator in ("==", "!=")
        and all(isinstance(side, s.Function) and side.name == "values" for side in (node.left, node.right))
    )


def is_estimate(expectation: s.Expectation) -> bool:
    """Return whether a claim is about the population that its traces are a sample of."""
    return expectation.confidence is not None or isinstance(expectation.claim, s.BaselineTest)


def find_equality_problems(node: s.Compare, left: ValueType, right: ValueType) -> Iterator[Diagnostic]:
    """Yield the reasons why values of these types cannot be equal."""
    kinds = {left.kind, right.kind}
    if "any" in kinds and kinds & {"duration", "rate", "points"} and _has_attribute_side(node):
        yield Diagnostic("no-unit", "an attribute has no unit", node.at, "compare it with a plain number")
    elif "any" not in kinds and "nothing" not in kinds and len(kinds) > 1 and kinds != {"fraction", "number"}:
        help_ = "write a duration with its unit, such as `5ms`, and a number without"
        message = f"{left.name} on the left, {right.name} on the right"
        yield _make_type_mismatch(message, node.at, help_ if kinds == {"duration", "number"} else None)


def _has_attribute_side(node: s.Compare) -> bool:
    return any(isinstance(side, s.Name) and "." in side.text for side in (node.left, node.right))


def _find_pattern_problems(node: s.Compare, left: ValueType, right: ValueType) -> Iterator[Diagnostic]:
    if left.kind not in ("text", "any"):
        yield _make_type_mismatch(f"a regular expression searches a text, not {left.name}", node.left.at)
    if right.kind not in ("text", "any"):
        yield _make_type_mismatch("a regular expression is a string", node.right.at)
    elif isinstance(node.right, s.Text) and all(isinstance(part, str) for part in node.right.parts):
        error = _find_pattern_error(node.right.plain)
        if error:
            yield Diagnostic("bad-pattern", f"not a regular expression: {error}", node.right.at, "the syntax is RE2's")


def _find_pattern_error(pattern: str) -> str | None:
    """Return the error of a regular expression in RE2 syntax, or None."""
    import duckdb  # the engine that runs the pattern; imported late because only patterns need it

    try:
        duckdb.execute("SELECT regexp_matches('', $pattern)", {"pattern": pattern})
    except duckdb.Error as error:
        return str(error).removeprefix("Invalid Input Error: ").strip()
    return None


def infer_arithmetic_type(node: s.Arithmetic, left: ValueType, right: ValueType) -> ValueType | Diagnostic:
    """Return the type of a calculation with two operands, or its problem."""
    many = left.is_many or right.is_many
    if left.is_many and right.is_many:
        return Diagnostic("two-bags", "both sides hold many values", node.at, "aggregate one, as in `max(…)`")
    kinds = (left.kind, right.kind)
    if not {*kinds} <= NUMERIC_KINDS:
        invalid = left if left.kind not in NUMERIC_KINDS else right
        return _make_type_mismatch(f"`{node.operator}` cannot be applied to {invalid.name}", node.at)
    if "any" in kinds:
        return ValueType("any", many)
    if node.operator in ("+", "-"):
        if left.kind == right.kind:
            return ValueType(left.kind, many)
        if {*kinds} <= {"fraction", "number", "points"}:
            return ValueType("fraction", many)
    elif node.operator == "*" and "number" in kinds:
        return ValueType(right.kind if left.kind == "number" else left.kind, many)
    elif node.operator == "*" and "fraction" in kinds:
        return ValueType(right.kind if left.kind == "fraction" else left.kind, many)
    elif node.operator == "/":
        if left.kind == right.kind:
            return ValueType("number", many)
        if right.kind in ("number", "fraction"):
            return ValueType(left.kind, many)
    return _make_type_mismatch(f"{left.name} `{node.operator}` {right.name} has no meaning", node.at)


def _make_type_mismatch(message: str, at: s.TextRange, help_: str | None = None) -> Diagnostic:
    return Diagnostic("type-mismatch", message, at, help_)
