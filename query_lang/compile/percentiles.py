"""Percentages of the functions ``p50`` … ``p99`` and ``p(99.9, …)``."""

from __future__ import annotations

from decimal import Decimal

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v


def read_percentage(function: s.Function) -> Decimal:
    """Return the percentage of ``p50`` … ``p99`` or ``p(99.9, …)``."""
    return read_percentile_of(function.name, function.arguments)


def read_percentile_of(name: str, arguments: tuple[s.Expression, ...]) -> Decimal:
    """Return the percentage of a percentile function with this name and these arguments."""
    percent = v.read_quantile(name)
    if percent is not None:
        return Decimal(percent)
    assert isinstance(arguments[0], s.Number)  # noqa: S101 (checked before)
    return arguments[0].value
