"""Checks of the operands of a comparison that is a claim."""

from __future__ import annotations

from collections.abc import Iterator

from spanproof.query_lang.check.constants import is_constant
from spanproof.query_lang.check.types import mentions_baseline
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.diagnostics import Diagnostic


def find_misplaced_operands(node: s.Compare | s.OneOf) -> Iterator[Diagnostic]:
    """Yield the misplaced operands of a comparison whose types agree."""
    if isinstance(node, s.OneOf):
        sides = (node.value, *(option for option in node.options if not isinstance(option, s.ValueRange)))
        for side in sides:
            if mentions_baseline(side):
                yield Diagnostic("misplaced", "`baseline` is compared with an operator such as `<` or `<=`", side.at)
    else:
        sides = (node.left, node.right)
        yield from _find_misplaced_baseline(node)
    for side in sides:
        yield from find_value_problems(side)


def _find_misplaced_baseline(node: s.Compare) -> Iterator[Diagnostic]:
    for side, other in ((node.left, node.right), (node.right, node.left)):
        if not mentions_baseline(side):
            continue
        if mentions_baseline(other):
            yield Diagnostic(
                "misplaced", "`baseline` stands for the other side, so it cannot be on both sides", side.at
            )
            return
        if is_constant(other):
            yield Diagnostic("misplaced", "the other side has the same value for any traces", side.at)


def find_value_problems(node: s.Expression) -> Iterator[Diagnostic]:
    """Yield the misplaced parts of one operand, or of the number of a query, whose types agree."""
    match node:
        case s.Arithmetic():
            yield from find_value_problems(node.left)
            yield from find_value_problems(node.right)
        case s.Negative():
            yield from find_value_problems(node.value)
        case s.Compare() | s.OneOf() | s.AllOf() | s.Not():
            yield Diagnostic(
                "not-a-claim", "a condition is not a value to compare", node.at, "write one `expect` for each condition"
            )
        case s.AnyOf():
            for term in node.terms:
                yield from find_value_problems(term)
            if not is_constant(node):
                yield Diagnostic("misplaced", "`or` chooses between values known before any span is read", node.at)
        case s.Function() if node.name in v.AGGREGATES:
            for part in s.walk(node.arguments[-1]):
                if isinstance(part, s.Function) and (part.name in v.AGGREGATES or _is_scalar_function(part)):
                    yield Diagnostic(
                        "misplaced",
                        f"`{node.name}` aggregates one selection, but `{part.name}(…)` is already one number",
                        part.at,
                        "move it out of the parentheses",
                    )
        case s.Function() if node.name in v.CONSTANT_FUNCTIONS and not is_constant(node):
            yield Diagnostic("misplaced", f"`{node.name}` takes a value known before any span is read", node.at)


def _is_scalar_function(node: s.Function) -> bool:
    return node.name in v.SELECTION_FUNCTIONS and not v.SELECTION_FUNCTIONS[node.name].is_many
