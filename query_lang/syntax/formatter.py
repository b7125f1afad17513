"""Lays a proof file out: indentation, spaces and blank lines; words, comments and line ends stay as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Final

from spanproof.query_lang.syntax.parser import ParsedFile

INDENT: Final = "  "
TOKEN_PATTERN: Final = re.compile(
    r'(?P<comment>#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<end>\r?\n)|(?P<space>[ \t\f]+)'
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[A-Za-zµ%]+|/s(?![A-Za-z0-9_]))?)"
    r'|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:[-.][A-Za-z0-9_]+)*(?:\."(?:[^"\\\n]|\\.)*")?)'
    r"|(?P<member>\.[A-Za-z_][A-Za-z0-9_.-]*)"
    r"|(?P<mark>->>|->|~>|=>|==|!=|<=|>=|=~|!~|\.\.|[-+*/<>=|(){}\[\],:])"
)
OPENING: Final = ("(", "[", "{")
CLOSING: Final = (")", "]", "}")
BEFORE_A_GROUP: Final = ("in", "has", "and", "or", "not", "where")
BEFORE_A_LIST: Final = (*BEFORE_A_GROUP, "json", "form")
BEFORE_A_SIGN: Final = ("(", "[", ",", ":", "and", "or", "not", "in", "has", "within", "last", "than", "by")


@dataclass(frozen=True, slots=True)
class _FormatToken:
    kind: str
    text: str


def format_file(file: ParsedFile) -> str:
    """Return the text of a file that parses, laid out. Doing it again changes nothing."""
    lines: list[str] = []
    depth, blank = 0, False
    for tokens in _split_lines(file.text):
        if not tokens:
            blank = bool(lines) and not lines[-1].endswith("{")
            continue
        closing = 0
        while closing < len(tokens) and tokens[closing].text in CLOSING and tokens[closing].kind == "mark":
            closing += 1
        if blank and not closing:
            lines.append("")
        blank = False
        lines.append(INDENT * max(depth - closing, 0) + _join_tokens(tokens))
        marks = [token.text for token in tokens if token.kind == "mark"]
        depth += sum(mark in OPENING for mark in marks) - sum(mark in CLOSING for mark in marks)
    return "\n".join(lines) + "\n" if lines else ""


def _split_lines(text: str) -> Iterator[list[_FormatToken]]:
    """Yield the tokens of each line, without what is white."""
    line: list[_FormatToken] = []
    for match in TOKEN_PATTERN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "end":
            yield line
            line = []
        elif kind != "space":
            line.append(_FormatToken(kind, match.group().rstrip()))
    yield line


def _join_tokens(tokens: list[_FormatToken]) -> str:
    text = tokens[0].text
    for place in range(1, len(tokens)):
        text += _choose_gap(tokens, place) + tokens[place].text
    return text


def _choose_gap(tokens: list[_FormatToken], place: int) -> str:
    """Return what stands between a token and the one before it."""
    before, token = tokens[place - 1], tokens[place]
    if token.kind == "comment":
        return "  "
    if token.kind == "member" or ".." in (before.text, token.text):
        return ""
    if before.kind == "mark" and before.text in ("(", "["):
        return ""
    if token.kind == "mark":
        if token.text in (")", "]", ",", ":"):
            return ""
        if token.text == "(":
            return "" if before.kind == "word" and before.text not in BEFORE_A_GROUP else " "
        if token.text == "[":
            return "" if _is_index(tokens, place) else " "
        if token.text == "}" and before.text == "{":
            return ""
    if before.text == "-" and before.kind == "mark" and _is_sign(tokens, place - 1):
        return ""
    return " "


def _is_index(tokens: list[_FormatToken], place: int) -> bool:
    """Tell whether a `[` belongs to what stands before it: not a list, nor a proof's tags."""
    before = tokens[place - 1]
    if tokens[0].text == "proof" and place == 2:
        return False
    return (before.kind in ("word", "string", "member") and before.text not in BEFORE_A_LIST) or before.text in (
        "*",
        "]",
    )


def _is_sign(tokens: list[_FormatToken], place: int) -> bool:
    """Tell whether a `-` is that of a number, not between two."""
    if place == 0:
        return True
    before = tokens[place - 1]
    return before.text in BEFORE_A_SIGN or (before.kind == "mark" and before.text not in (")", "]", "*"))


def is_same_tree(one: object, other: object) -> bool:
    """Tell whether two nodes are the same but for where they stand."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(is_same_tree(a, b) for a, b in zip(one, other, strict=True))
    if is_dataclass(one):
        names = [field.name for field in fields(one) if not field.name.endswith("at") or field.name == "what"]
        return all(is_same_tree(getattr(one, name), getattr(other, name)) for name in names)
    return one == other
