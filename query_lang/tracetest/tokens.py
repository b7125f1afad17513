"""The tokens of Tracetest's texts, and their places in the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from spanproof.query_lang.syntax import Source
from spanproof.query_lang.tracetest.constructs import malformed

# Where a stretch of a text stands in the file.
Place: TypeAlias = Callable[[int, int], Source]


def split_tokens(text: str, pattern: re.Pattern[str], place: Place, whole: str) -> list[re.Match[str]]:
    """Split a text into tokens, each with the white space before it. Raises Refused; `whole` names what it is."""
    tokens: list[re.Match[str]] = []
    end = 0
    while text[end:].strip():
        matched = pattern.match(text, end)
        if matched is None:
            begin = len(text) - len(text[end:].lstrip())
            raise malformed(f"this is no part of {whole}", place(begin, begin + 1))
        tokens.append(matched)
        end = matched.end()
    return tokens


def locate_tokens(first: re.Match[str], last: re.Match[str], place: Place) -> Source:
    """Return where tokens stand, without the white space before them."""
    return place(first.end() - len(first.group().lstrip()), last.end())
