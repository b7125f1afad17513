"""Aggregates of numbers, exact."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

from spanproof.query_lang.syntax import nodes as s


def compute_aggregate(node: s.Function, numbers: list[Fraction]) -> Fraction:
    """Return an aggregate of numbers in ascending order, of which there are enough."""
    match node.name:
        case "min":
            return numbers[0]
        case "max":
            return numbers[-1]
        case "avg":
            return sum(numbers, Fraction(0)) / len(numbers)
        case "stddev":
            return Fraction(statistics.stdev(numbers))
    return numbers[math.ceil(percent_of(node) / 100 * len(numbers)) - 1]


def percent_of(node: s.Function) -> Fraction:
    """Return the percentage of ``p50`` … ``p99`` or ``p(99.9, …)``."""
    if node.name == "p":
        assert isinstance(node.arguments[0], s.Number)
        return Fraction(node.arguments[0].value)
    return Fraction(node.name[1:])
