"""Printer of strings, names, durations and JSON as literals of proofs: the inverse of :mod:`literals`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeAlias

from msgspec import Struct

from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.literals import INT64_LIMIT, UNITS_NS, find_word_characters, is_name
from spanproof.query_lang.syntax.parser import list_keywords

MAX_LINE_WIDTH: Final = 100
INDENT: Final = "  "
MAX_DIGITS: Final = 40
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "{": "\\{", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
Json: TypeAlias = "Mapping[str | RawText, Json] | Sequence[Json] | str | Decimal | int | bool | RawText | None"


class RawText(Struct, frozen=True):
    """Part of JSON to print unchanged: a name, or a string with placeholders."""

    text: str


def make_safe_name(name: str) -> str:
    """Return a name that differs from every field, function and keyword of the language."""
    safe_name = re.sub(rf"[^{find_word_characters(name)}]", "_", name)
    if not is_name(safe_name):
        return f"_{safe_name}"
    return f"{safe_name}_" if _is_reserved_word(safe_name) else safe_name


def is_plain_name(name: str) -> bool:
    """Return whether a name needs no quotes and is not a reserved word."""
    return is_name(name) and not _is_reserved_word(name)


def _is_reserved_word(name: str) -> bool:
    return name in (*list_keywords(), *v.SPAN_FIELDS, *v.CALL_FIELDS, *v.FUNCTIONS, *v.CONSTANTS, "response", "traces")


def format_string(text: str) -> str:
    """Return a text as a string literal without placeholders."""
    return f'"{escape_string(text)}"'


def escape_string(text: str) -> str:
    """Return a text with the escapes that it needs between quotes."""
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in text)
    return re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]", lambda match: f"\\u{ord(match.group()):04x}", escaped)


def format_duration_ns(ns: int) -> str:
    """Return nanoseconds in the largest unit that keeps them whole."""
    for unit in ("h", "m", "s", "ms", "us"):
        if ns and ns % UNITS_NS[unit] == 0:
            return f"{ns // UNITS_NS[unit]}{unit}"
    return f"{ns}ns"


def format_json(value: Json, indent: int = 0) -> str:
    """Return JSON, on one line if it is short."""
    line = _format_json_line(value)
    if len(line) + len(INDENT) * indent <= MAX_LINE_WIDTH or not isinstance(value, Mapping | list) or not value:
        return line
    inner, outer = INDENT * (indent + 1), INDENT * indent
    if isinstance(value, Mapping):
        lines = [f"{inner}{_format_json_line(key)}: {format_json(each, indent + 1)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    lines = [inner + format_json(each, indent + 1) for each in value]
    return "[\n" + ",\n".join(lines) + f"\n{outer}]"


def _format_json_line(value: Json) -> str:
    match value:
        case RawText():
            return value.text
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() | Decimal():
            return format(value, "f")
        case str():
            return format_string(value)
        case Mapping():
            pairs = ", ".join(f"{_format_json_line(key)}: {_format_json_line(each)}" for key, each in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return f"[{', '.join(_format_json_line(each) for each in value)}]"


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, with numbers as Decimal. Raises ValueError if a proof cannot contain it."""

    def number(digits: str) -> Decimal:
        value = Decimal(digits)
        if not value.is_finite() or abs(value) >= INT64_LIMIT or len(format(value, "f")) > MAX_DIGITS:
            raise ValueError(f"{digits} is not a number that a proof can contain")
        return value

    try:
        return json.loads(text, strict=False, parse_int=number, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
