"""Source lines of a proof that a message refers to, with marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spanproof.assertions.findings.verdict import Mark
from spanproof.query_lang.syntax.diagnostics import locate_offset


@dataclass(frozen=True, slots=True)
class MarkedPart:
    """A marked part of a line, its start column (from 1) and the text beside it; one per excerpt is `primary`."""

    column: int
    width: int
    text: str
    primary: bool


@dataclass(frozen=True, slots=True)
class ExcerptLine:
    """A source line with its number and its marks from left to right."""

    number: int
    text: str
    marks: tuple[MarkedPart, ...]


def extract_excerpt(text: str, primary: Mark, others: Sequence[Mark] = ()) -> tuple[ExcerptLine, ...]:
    """Return the lines on which marks begin. A mark ends at the end of its line at the latest."""
    lines = text.split("\n")  # as `locate_offset` counts them
    marks_by_line: dict[int, list[MarkedPart]] = {}
    for mark in (primary, *others):
        position = locate_offset(text, min(mark.at.start, len(text)))
        rest_of_line = len(lines[position.line - 1].rstrip("\r")) - position.column + 1
        width = max(1, min(mark.at.end - mark.at.start, rest_of_line))
        part = MarkedPart(position.column, width, mark.text, mark is primary)
        marks_by_line.setdefault(position.line, []).append(part)
    return tuple(
        ExcerptLine(number, lines[number - 1].rstrip("\r"), tuple(sorted(marks, key=lambda each: each.column)))
        for number, marks in sorted(marks_by_line.items())
    )
