"""Diagnostics of proofs: problems with their positions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from spanproof.query_lang.syntax.nodes import TextRange


class Diagnostic(Struct, frozen=True):
    """Problem of a proof: a stable id, a message, its range in the text, and a remedy."""

    id: str
    message: str
    at: TextRange
    help: str | None = None
    severity: Literal["error", "warning"] = "error"


class Position(Struct, frozen=True):
    """Line and column, both counted from 1."""

    line: int
    column: int


def locate_offset(text: str, offset: int) -> Position:
    """Return the line and column of a character offset."""
    before = text[:offset]
    return Position(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def find_nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the `known` words that are most similar to `word`, nearest first."""
    by_lower = {name.lower(): name for name in sorted(known, reverse=True)}
    matches = difflib.get_close_matches(word.lower(), sorted(by_lower), n=count, cutoff=0.6)
    return [by_lower[name] for name in matches]


def suggest_names(word: str, known: Iterable[str]) -> str | None:
    """Return a question that suggests the nearest known words, or None if no word is near."""
    names = find_nearest(word, known)
    return "did you mean " + " or ".join(f"`{name}`" for name in names) + "?" if names else None
