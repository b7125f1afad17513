"""Names, numbers with units, and strings with escapes."""

from __future__ import annotations

import re
import unicodedata
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
# Combining marks of all scripts (categories Mn and Mc), as ranges for a character class; Python's `\w` lacks them.
# A pattern with them takes 2 ms to compile: the parser uses one only for a text with marks.
_MARKS: Final = (
    r"\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0610-\u061a\u064b-\u065f"
    r"\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u0711-\u07f3\u07fd\u0816-\u082d\u0859-\u085b\u0898-\u08e1"
    r"\u08e3-\u0963\u0981-\u09e3\u09fe-\u0a75\u0a81-\u0ae3\u0afa-\u0b63\u0b82-\u0bd7\u0c00-\u0c63\u0c81-\u0c83"
    r"\u0cbc-\u0d4d\u0d57-\u0d63\u0d81-\u0df3\u0e31-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ecd\u0f18-\u0f19\u0f35\u0f37"
    r"\u0f39\u0f3e-\u0f84\u0f86-\u0fbc\u0fc6\u102b-\u103e\u1056-\u109d\u135d-\u135f\u1712-\u1734\u1752-\u17d3"
    r"\u17dd\u180b-\u180d\u180f-\u193b\u1a17-\u1a1b\u1a55-\u1a7f\u1ab0-\u1b44\u1b6b-\u1b73\u1b80-\u1bf3"
    r"\u1c24-\u1c37\u1cd0-\u1cd2\u1cd4-\u1dff\u20d0-\u20f0\u2cef-\u2cf1\u2d7f-\u2dff\u302a-\u302f\u3099-\u309a"
    r"\ua66f\ua674-\ua67d\ua69e-\ua6f1\ua802-\ua827\ua82c\ua880-\ua8c5\ua8e0-\ua8f1\ua8ff-\ua92d\ua947-\ua953"
    r"\ua980-\ua9c0\ua9e5-\uaa4d\uaa7b-\uaac1\uaaeb-\uaaef\uaaf5-\uaaf6\uabe3-\uabea\uabec-\uabed\ufb1e"
    r"\ufe00-\ufe0f\ufe20-\ufe2f\U000101fd-\U0001037a\U00010a01-\U00010a3f\U00010ae5-\U00010ae6"
    r"\U00010d24-\U00010eac\U00010f46-\U00010f50\U00010f82-\U00010f85\U00011000-\U00011046\U00011070-\U000110ba"
    r"\U000110c2\U00011100-\U00011134\U00011145-\U00011173\U00011180-\U000111c0\U000111c9-\U000111cc"
    r"\U000111ce-\U000111cf\U0001122c-\U00011237\U0001123e\U000112df-\U00011446\U0001145e-\U000114c3"
    r"\U000115af-\U000115c0\U000115dc-\U00011640\U000116ab-\U000116b7\U0001171d-\U0001172b\U0001182c-\U0001183a"
    r"\U00011930-\U00011943\U000119d1-\U000119e0\U000119e4-\U00011a3e\U00011a47-\U00011a99\U00011c2f-\U00011c3f"
    r"\U00011c92-\U00011ef6\U00016af0-\U00016af4\U00016b30-\U00016b36\U00016f4f-\U00016f92\U00016fe4-\U00016ff1"
    r"\U0001bc9d-\U0001bc9e\U0001cf00-\U0001cf46\U0001d165-\U0001d169\U0001d16d-\U0001d172\U0001d17b-\U0001d182"
    r"\U0001d185-\U0001d18b\U0001d1aa-\U0001d1ad\U0001d242-\U0001d244\U0001da00-\U0001da36\U0001da3b-\U0001da6c"
    r"\U0001da75\U0001da84\U0001da9b-\U0001e136\U0001e2ae-\U0001e2ef\U0001e8d0-\U0001e94a\U000e0100-\U000e01ef"
)
# A letter or digit of any script or `_`, without and with marks, as the content of a character class.
SIMPLE_WORD_CHARACTERS: Final = r"\w"
WORD_CHARACTERS: Final = rf"\w{_MARKS}"
WORD: Final = rf"[^\W\d][{WORD_CHARACTERS}]*"
NAME: Final = rf"{WORD}(?:[-.][{WORD_CHARACTERS}]+)*"
_PLACEHOLDER: Final = re.compile(r"\{([^\W\d][^\s{}\\]*)\}")
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "{": "{", "}": "}", "/": "/"}


def find_word_characters(text: str) -> str:
    """Return the content of a character class for the words of a text."""
    has_marks = not text.isascii() and any(unicodedata.category(letter) in ("Mn", "Mc") for letter in text)
    return WORD_CHARACTERS if has_marks else SIMPLE_WORD_CHARACTERS


def is_name(text: str) -> bool:
    """Return whether a text has the form of a name."""
    characters = find_word_characters(text)
    return re.fullmatch(rf"[^\W\d][{characters}]*(?:[-.][{characters}]+)*", text) is not None


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


def _is_placeholder(name: str) -> bool:
    return re.fullmatch(rf"[{find_word_characters(name)}.-]+", name) is not None


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
        elif (name := _PLACEHOLDER.match(inner[index:])) and _is_placeholder(name.group(1)):
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
