"""How a number can change while spans are still arriving."""

from __future__ import annotations

from typing import Final

from spanproof.query_lang.check.constants import Bindings, evaluate, is_constant, to_decimal
from spanproof.query_lang.sql.plan import Trend
from spanproof.query_lang.syntax import nodes as s

TRENDS: Final[dict[str, Trend]] = {"count": "up", "max": "up", "min": "down", "distinct": "up"}
OPPOSITE_TRENDS: Final[dict[Trend, Trend]] = {"fixed": "fixed", "up": "down", "down": "up", "unknown": "unknown"}


def infer_trend(node: s.Expression, bindings: Bindings) -> Trend:
    """Return how a number can change while spans are still arriving."""
    if is_constant(node):
        return "fixed"
    if isinstance(node, s.Function):
        if any(isinstance(part, s.SpanSelection | s.CallSelection) and part.pick for part in s.walk(node)):
            return "unknown"
        return TRENDS.get(node.name, "unknown")
    if isinstance(node, s.Arithmetic) and node.operator in ("+", "-"):
        right = infer_trend(node.right, bindings)
        return subtract_trends(
            infer_trend(node.left, bindings), OPPOSITE_TRENDS[right] if node.operator == "+" else right
        )
    if isinstance(node, s.Arithmetic):
        moving, factor = node.left, node.right
        if node.operator == "*" and is_constant(moving):
            moving, factor = factor, moving
        if is_constant(factor) and to_decimal(evaluate(factor, bindings)) > 0:
            return infer_trend(moving, bindings)
    return "unknown"


def subtract_trends(left: Trend, right: Trend) -> Trend:
    """Return the trend of left minus right."""
    other = OPPOSITE_TRENDS[right]
    if left == "fixed":
        return other
    return left if other in ("fixed", left) else "unknown"
