"""Masking of secret values in output."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

MASK_TEXT: Final = "***"
MIN_LENGTH: Final = 4  # shorter texts are part of too many other words
MIN_LINE_LENGTH: Final = 8  # of one line of a multi-line secret
_PERCENT_ESCAPES: Final = re.compile(r"((?:%[0-9A-Fa-f]{2})+)")


class Secrets:
    """Texts to mask wherever they would be printed or stored. Thread-safe."""

    def __init__(self) -> None:
        self._forms: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether no secret is known."""
        return not self._forms

    def add(self, value: str) -> None:
        """Add a secret. It is also masked as part of another text, and as escaped in URLs and JSON."""
        forms = frozenset(_list_forms(value))
        with self._lock:
            self._forms |= forms

    def mask(self, text: str) -> str:
        """Return a text with ``***`` in place of each secret."""
        return self._replace(text, lambda _: MASK_TEXT)

    def mask_keeping_length(self, text: str) -> str:
        """Return a text of the same length and lines, with ``*`` for each character of a secret."""
        return self._replace(text, lambda secret: "".join("\n" if letter == "\n" else "*" for letter in secret))

    def _replace(self, text: str, make_replacement: Callable[[str], str]) -> str:
        parts, end = [], 0
        for first, last in self._find_ranges(text):
            parts += [text[end:first], make_replacement(text[first:last])]
            end = last
        return "".join([*parts, text[end:]]) if parts else text

    def _find_ranges(self, text: str) -> list[tuple[int, int]]:
        """Return the ranges of a text that contain secrets. Adjacent ranges are merged."""
        ranges = list(self._find_form_ranges(text))
        if "%" in text:  # clients differ in which characters of a URL they escape
            unescaped, offsets = _decode_percent_escapes(text)
            ranges += [(offsets[first], offsets[last]) for first, last in self._find_form_ranges(unescaped)]
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return merged

    def _find_form_ranges(self, text: str) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            start = text.find(form)
            while start >= 0:
                yield start, start + len(form)
                start = text.find(form, start + 1)


def _decode_percent_escapes(text: str) -> tuple[str, list[int]]:
    """Return a text with its URL escapes decoded, and the original offsets of its characters and of its end."""
    letters: list[str] = []
    widths: list[int] = []
    for number, part in enumerate(_PERCENT_ESCAPES.split(text)):
        escaped = number % 2
        raw = bytes.fromhex(part.replace("%", "")).decode("utf-8", "surrogateescape") if escaped else part
        letters += raw
        widths += [3 * len(letter.encode("utf-8", "surrogateescape")) if escaped else 1 for letter in raw]
    return "".join(letters), list(accumulate(widths, initial=0))


def _list_forms(value: str) -> Iterator[str]:
    """Yield the spellings of a secret that may occur in output."""
    lines = [line.strip() for line in value.splitlines()]
    parts = [value.strip(), *(line for line in lines if len(line) >= MIN_LINE_LENGTH)]
    for part in parts:
        if len(part) >= MIN_LENGTH:
            for case in (part, part.lower(), part.upper()):
                yield from (case, case.replace(" ", "+"))  # as in form data
                yield from (json.dumps(case)[1:-1], json.dumps(case, ensure_ascii=False)[1:-1], repr(case)[1:-1])
