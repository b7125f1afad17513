"""What goes with what: which types can be compared, searched and calculated with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from spanproof.query_lang import syntax as s
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.vocabulary import Type

NUMERIC: Final = frozenset({"number", "duration", "fraction", "points", "rate", "any"})


def find_faults(node: s.Compare, left: Type, right: Type) -> Iterator[Diagnostic]:
    """Say what is wrong with comparing sides of these types."""
    match node.operator:
        case "=~" | "!~":
            yield from _find_pattern_faults(node, left, right)
        case "contains":
            if left.kind not in ("text", "any"):
                yield _mismatch(f"`contains` looks into a text or list, not {left.name}", node.left.at)
            if right.kind not in ("text", "any"):
                yield _mismatch(f"`contains` looks for a text, not {right.name}", node.right.at)
        case operator:
            yield from find_mismatch(node, left, right)
            if operator in ("<", "<=", ">", ">=") and "boolean" in (left.kind, right.kind):
                yield _mismatch("a condition is not more or less than another", node.at)
    if left.many and right.many:
        help_ = "aggregate one: `max(…)`, `p95(…)`, `avg(…)`"
        yield Diagnostic("two-bags", "both sides hold many values", node.at, help_)


def find_mismatch(node: s.Compare, left: Type, right: Type) -> Iterator[Diagnostic]:
    """Say why values of these types cannot be equal, if they cannot."""
    kinds = {left.kind, right.kind}
    if "any" in kinds and kinds & {"duration", "rate", "points"} and _is_attribute_beside(node):
        yield Diagnostic("no-unit", "an attribute has no unit", node.at, "compare it with a plain number")
    elif "any" not in kinds and "nothing" not in kinds and len(kinds) > 1 and kinds != {"fraction", "number"}:
        help_ = "write a duration with its unit, such as `5ms`, and a number without"
        what = f"{left.name} on the left, {right.name} on the right"
        yield _mismatch(what, node.at, help_ if kinds == {"duration", "number"} else None)


def _is_attribute_beside(node: s.Compare) -> bool:
    return any(isinstance(side, s.Name) and "." in side.text for side in (node.left, node.right))


def _find_pattern_faults(node: s.Compare, left: Type, right: Type) -> Iterator[Diagnostic]:
    if left.kind not in ("text", "any"):
        yield _mismatch(f"a regular expression searches a text, not {left.name}", node.left.at)
    if right.kind not in ("text", "any"):
        yield _mismatch("a regular expression is a string", node.right.at)
    elif isinstance(node.right, s.Text) and all(isinstance(part, str) for part in node.right.parts):
        fault = _find_pattern_fault(node.right.plain)
        if fault:
            yield Diagnostic("bad-pattern", f"not a regular expression: {fault}", node.right.at, "the syntax is RE2's")


def _find_pattern_fault(pattern: str) -> str | None:
    """Return what is wrong with a regular expression in RE2 syntax, or None."""
    import duckdb  # what the pattern will be searched with; only files with patterns wait for it

    try:
        duckdb.execute("SELECT regexp_matches('', $pattern)", {"pattern": pattern})
    except duckdb.Error as error:
        return str(error).removeprefix("Invalid Input Error: ").strip()
    return None


def calculate(node: s.Arithmetic, left: Type, right: Type) -> Type | Diagnostic:
    """Return the type of what is calculated of two sides, or what is wrong with that."""
    many = left.many or right.many
    if left.many and right.many:
        return Diagnostic("two-bags", "both sides hold many values", node.at, "aggregate one, as in `max(…)`")
    kinds = (left.kind, right.kind)
    if not {*kinds} <= NUMERIC:
        wrong = left if left.kind not in NUMERIC else right
        return _mismatch(f"`{node.operator}` does not go with {wrong.name}", node.at)
    if "any" in kinds:
        return Type("any", many)
    if node.operator in ("+", "-"):
        if left.kind == right.kind:
            return Type(left.kind, many)
        if {*kinds} <= {"fraction", "number", "points"}:
            return Type("fraction", many)
    elif node.operator == "*" and "number" in kinds:
        return Type(right.kind if left.kind == "number" else left.kind, many)
    elif node.operator == "*" and "fraction" in kinds:
        return Type(right.kind if left.kind == "fraction" else left.kind, many)
    elif node.operator == "/":
        if left.kind == right.kind:
            return Type("number", many)
        if right.kind in ("number", "fraction"):
            return Type(left.kind, many)
    return _mismatch(f"{left.name} `{node.operator}` {right.name} has no meaning", node.at)


def _mismatch(message: str, at: s.Source, help_: str | None = None) -> Diagnostic:
    return Diagnostic("type-mismatch", message, at, help_)
