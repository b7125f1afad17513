"""Formatting of values with their units."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Final

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS, STATUS_CODES
from spanproof.query_lang.syntax.vocabulary import ValueType

MAX_DIGITS: Final = 400  # enough for every digit of a double that is shown


def format_duration(ns: int | float | Decimal) -> str:
    """Return a duration exactly: ``612ms``, ``1.5s``, ``-3.25ms``. Above a minute a single unit is enough."""
    with localcontext(prec=MAX_DIGITS):
        return _format_duration(Decimal(ns))


def _format_duration(exact: Decimal) -> str:
    size = abs(exact)
    unit, name = (
        (1_000_000_000, "s") if size >= 1_000_000_000 else (1_000_000, "ms") if size >= 1_000_000 else (1_000, "µs")
    )
    if size < 1_000:
        unit, name = (1, "ns") if size else (1_000_000, "ms")
    value = exact / unit
    text = f"{value:.9f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))
    return f"{text}{name}"


def format_fraction(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{fraction * 100:.6g}%"


def format_value(value: object, type_: ValueType) -> str:
    """Return a value as a proof writes it."""
    if value is None:
        return "missing"
    match type_.kind:
        case "duration" if isinstance(value, int | float | Decimal):
            return format_duration(value)
        case "fraction" if isinstance(value, int | float | Decimal):
            return format_fraction(float(value))
        case "kind" | "status":
            words = SPAN_KINDS if type_.kind == "kind" else STATUS_CODES
            return next((word for word, code in words.items() if code == value), str(value))
        case "rate" if isinstance(value, int | float | Decimal):
            return f"{float(value):.6g}/s"
        case "boolean":
            return str(value).lower()
    if isinstance(value, str):
        return value[2:] if value.startswith("\x01") else value
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
