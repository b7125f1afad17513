"""Literals: numbers with units, and strings with escapes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names
from spanproof.query_lang.syntax.nodes import TextRange

UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
INT64_LIMIT: Final = 2**63
OTHER_UNITS: Final = ("%", "pp", "/s")
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "{": "{", "}": "}", "/": "/"}


class DiagnosticError(Exception):
    """Error for a text that is well-formed but meaningless. Holds the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def read_number_literal(text: str, at: TextRange) -> s.Number:
    """Read a number with its unit, without rounding."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)?", text)
    assert match is not None  # noqa: S101 (the lexer's own pattern)
    value, unit = Decimal(match.group()), text[match.end() :]
    if value * UNITS_NS.get(unit, 1) >= INT64_LIMIT:
        raise DiagnosticError(Diagnostic("out-of-range", f"`{text}` does not fit into 64 bits", at))
    if not unit:
        return s.Number(value, "", at)
    if unit in UNITS_NS:
        ns = value * UNITS_NS[unit]
        if ns != int(ns):
            raise DiagnosticError(Diagnostic("precision", f"`{text}` is not a whole number of nanoseconds", at))
        return s.Number(Decimal(int(ns)), "ns", at)
    if unit in ("%", "pp"):
        return s.Number(value / 100, unit, at)  # type: ignore[arg-type]  # just checked
    if unit == "/s":
        return s.Number(value, "/s", at)
    known = (*UNITS_NS, *OTHER_UNITS)
    hint = suggest_names(unit, known) or _suggest_unit(unit)
    raise DiagnosticError(
        Diagnostic("unknown-unit", f"`{unit}` is not a unit", at, hint or "units are " + ", ".join(known))
    )


def read_duration_ns(text: str) -> int:
    """Read a text that is a duration, such as ``-1.5s``. Raises ValueError if it is not one."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    try:
        number = read_number_literal(digits, TextRange(0, len(digits)))
    except (DiagnosticError, AssertionError):
        number = None
    if number is None or number.unit != "ns":
        raise ValueError(f"`{text}` is not a duration")
    return sign * int(number.value)


def _suggest_unit(unit: str) -> str | None:
    unit_by_spelling = {"sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minutes": "m"}
    unit_by_spelling |= {"hour": "h", "hours": "h", "day": "d", "days": "d", "msec": "ms", "millis": "ms", "usec": "us"}
    suggested = unit_by_spelling.get(unit.lower())
    return f"did you mean `{suggested}`?" if suggested else None


def read_string_literal(literal: str, at: TextRange) -> s.Text:
    """Read a string literal with ``\\`` escapes and ``{name}`` placeholders."""
    parts: list[str | s.Name] = []
    plain = ""
    index, inner = 0, literal[1:-1]
    while index < len(inner):
        start = at.start + 1 + index
        if inner[index] == "\\":
            letter = inner[index + 1]
            if letter == "u" and re.match(r"[0-9A-Fa-f]{4}", inner[index + 2 :]):
                plain += chr(int(inner[index + 2 : index + 6], 16))
                index += 6
                continue
            if letter not in ESCAPES:
                raise DiagnosticError(
                    Diagnostic(
                        "escape", f"`\\{letter}` is not an escape", TextRange(start, start + 2), f"write `\\\\{letter}`"
                    )
                )
            plain += ESCAPES[letter]
            index += 2
        elif name := re.match(r"\{([A-Za-z_][\w.-]*)\}", inner[index:]):
            if plain:
                parts.append(plain)
            plain = ""
            parts.append(s.Name(name.group(1), TextRange(start + 1, start + 1 + len(name.group(1)))))
            index += name.end()
        else:
            plain += inner[index]
            index += 1
    if plain or not parts:
        parts.append(plain)
    return s.Text(tuple(parts), at)
