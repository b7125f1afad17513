"""Formatter of proof files: sets indentation, spaces and blank lines; keeps words, comments and line breaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from spanproof.query_lang.syntax.literals import NAME, WORD_CHARACTERS
from spanproof.query_lang.syntax.parser import ParsedFile

INDENT: Final = "  "
TOKEN_PATTERN: Final = re.compile(
    r'(?P<comment>#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<end>\r?\n)|(?P<space>[ \t\f]+)'
    rf"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:(?:[^\W\d_]|%)+|/s(?![{WORD_CHARACTERS}]))?)"
    rf'|(?P<word>{NAME}(?:\."(?:[^"\\\n]|\\.)*")?)'
    rf"|(?P<member>\.[^\W\d][{WORD_CHARACTERS}.-]*)"
    r"|(?P<mark>->>|->|~>|=>|==|!=|<=|>=|=~|!~|\.\.|[-+*/<>=|(){}\[\],:])"
)
OPENING: Final = ("(", "[", "{")
CLOSING: Final = (")", "]", "}")
BEFORE_A_GROUP: Final = ("in", "has", "and", "or", "not", "where")
BEFORE_A_LIST: Final = (*BEFORE_A_GROUP, "json", "form")
BEFORE_A_SIGN: Final = ("(", "[", ",", ":", "and", "or", "not", "in", "has", "within", "last", "than", "by")


class _FormatToken(Struct, frozen=True):
    kind: str
    text: str


def format_file(file: ParsedFile) -> str:
    """Return the formatted text of a file without syntax errors. Formatting is idempotent."""
    lines: list[str] = []
    depth, is_blank_pending = 0, False
    for tokens in _split_lines(file.text):
        if not tokens:
            is_blank_pending = bool(lines) and not lines[-1].endswith("{")
            continue
        closing_count = 0
        while (
            closing_count < len(tokens)
            and tokens[closing_count].text in CLOSING
            and tokens[closing_count].kind == "mark"
        ):
            closing_count += 1
        if is_blank_pending and not closing_count:
            lines.append("")
        is_blank_pending = False
        lines.append(INDENT * max(depth - closing_count, 0) + _join_tokens(tokens))
        marks = [token.text for token in tokens if token.kind == "mark"]
        depth += sum(mark in OPENING for mark in marks) - sum(mark in CLOSING for mark in marks)
    return "\n".join(lines) + "\n" if lines else ""


def _split_lines(text: str) -> Iterator[list[_FormatToken]]:
    """Yield the tokens of each line, without white space."""
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
    for index in range(1, len(tokens)):
        text += _choose_gap(tokens, index) + tokens[index].text
    return text


def _choose_gap(tokens: list[_FormatToken], index: int) -> str:
    """Return the white space between a token and its predecessor."""
    previous, token = tokens[index - 1], tokens[index]
    if token.kind == "comment":
        return "  "
    if token.kind == "member" or ".." in (previous.text, token.text):
        return ""
    if previous.kind == "mark" and previous.text in ("(", "["):
        return ""
    if token.kind == "mark":
        if token.text in (")", "]", ",", ":"):
            return ""
        if token.text == "(":
            return "" if previous.kind == "word" and previous.text not in BEFORE_A_GROUP else " "
        if token.text == "[":
            return "" if _is_index(tokens, index) else " "
        if token.text == "}" and previous.text == "{":
            return ""
    if previous.text == "-" and previous.kind == "mark" and _is_sign(tokens, index - 1):
        return ""
    return " "


def _is_index(tokens: list[_FormatToken], index: int) -> bool:
    """Return whether a `[` indexes the token previous it, and does not start a list or a proof's tags."""
    previous = tokens[index - 1]
    if tokens[0].text == "proof" and index == 2:
        return False
    return (previous.kind in ("word", "string", "member") and previous.text not in BEFORE_A_LIST) or previous.text in (
        "*",
        "]",
        ")",
    )


def _is_sign(tokens: list[_FormatToken], index: int) -> bool:
    """Return whether a `-` is a sign, not a subtraction."""
    if index == 0:
        return True
    previous = tokens[index - 1]
    return previous.text in BEFORE_A_SIGN or (previous.kind == "mark" and previous.text not in (")", "]", "*"))


def is_same_tree(left: object, right: object) -> bool:
    """Return whether two nodes are equal apart from their positions."""
    if type(left) is not type(right):
        return False
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(is_same_tree(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, Struct):
        names = [name for name in left.__struct_fields__ if not name.endswith("at") or name == "what"]
        return all(is_same_tree(getattr(left, name), getattr(right, name)) for name in names)
    return left == right
