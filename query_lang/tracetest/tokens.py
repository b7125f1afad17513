"""The tokens of Tracetest's texts, and their places in the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.tracetest.unsupported import make_malformed_error

# Where a stretch of a text stands in the file.
Locator: TypeAlias = Callable[[int, int], TextRange]


def split_tokens(text: str, pattern: re.Pattern[str], locate: Locator, whole: str) -> list[re.Match[str]]:
    """Split a text into tokens, each with the white space before it. Raises Refused; `whole` names what it is."""
    tokens: list[re.Match[str]] = []
    end = 0
    while text[end:].strip():
        matched = pattern.match(text, end)
        if matched is None:
            begin = len(text) - len(text[end:].lstrip())
            raise make_malformed_error(f"this is no part of {whole}", locate(begin, begin + 1))
        tokens.append(matched)
        end = matched.end()
    return tokens


def locate_tokens(first: re.Match[str], last: re.Match[str], locate: Locator) -> TextRange:
    """Return where tokens stand, without the white space before them."""
    return locate(first.end() - len(first.group().lstrip()), last.end())
