"""Tokens of Tracetest's texts, with their ranges in the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.tracetest.unsupported import make_malformed_error

# Maps a range of a text to its range in the file.
Locator: TypeAlias = Callable[[int, int], TextRange]


def split_tokens(text: str, pattern: re.Pattern[str], locate: Locator, text_name: str) -> list[re.Match[str]]:
    """Split a text into tokens, each with its leading white space. Raises DiagnosticError.

    `text_name` is the name of the text in errors.
    """
    tokens: list[re.Match[str]] = []
    end = 0
    while text[end:].strip():
        matched = pattern.match(text, end)
        if matched is None:
            begin = len(text) - len(text[end:].lstrip())
            raise make_malformed_error(f"this is not part of {text_name}", locate(begin, begin + 1))
        tokens.append(matched)
        end = matched.end()
    return tokens


def locate_tokens(first: re.Match[str], last: re.Match[str], locate: Locator) -> TextRange:
    """Return the range of tokens, without their leading white space."""
    return locate(first.end() - len(first.group().lstrip()), last.end())
