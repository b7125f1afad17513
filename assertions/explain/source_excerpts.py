"""The lines of a proof that a message speaks of, with what to mark in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spanproof.assertions.findings.verdict import Mark
from spanproof.query_lang.syntax.diagnostics import locate_offset


@dataclass(frozen=True, slots=True)
class MarkedPart:
    """A stretch of a line, from a column (from 1), and what to write beside it. One of an excerpt is `primary`."""

    column: int
    width: int
    text: str
    primary: bool


@dataclass(frozen=True, slots=True)
class ExcerptLine:
    """A line of the text, by its number, with its marks from left to right."""

    number: int
    text: str
    marks: tuple[MarkedPart, ...]


def extract_excerpt(text: str, primary: Mark, others: Sequence[Mark] = ()) -> tuple[ExcerptLine, ...]:
    """Return the lines on which marks begin. What goes on behind a line's end is marked up to there."""
    lines = text.split("\n")  # as `locate` counts them
    found: dict[int, list[MarkedPart]] = {}
    for mark in (primary, *others):
        place = locate_offset(text, min(mark.at.start, len(text)))
        room = len(lines[place.line - 1].rstrip("\r")) - place.column + 1
        width = max(1, min(mark.at.end - mark.at.start, room))
        found.setdefault(place.line, []).append(MarkedPart(place.column, width, mark.text, mark is primary))
    return tuple(
        ExcerptLine(number, lines[number - 1].rstrip("\r"), tuple(sorted(marks, key=lambda each: each.column)))
        for number, marks in sorted(found.items())
    )
