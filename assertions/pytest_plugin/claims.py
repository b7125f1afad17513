"""Claims in a test's own code: where they stand in it, so that what is said of them points there."""

from __future__ import annotations

import linecache
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType

from spanproof.assertions.pytest_plugin.rendering import render_to_string
from spanproof.assertions.reports.terminal import render_diagnostics
from spanproof.assertions.run.proof_files import format_path
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile, parse_claim


class ClaimError(ValueError):
    """A text is no claim; the message shows where."""


@dataclass(frozen=True, slots=True)
class CallSite:
    """A call in Python code: its file, the text of that, and its lines, counted from 1."""

    path: str
    text: str
    first_line: int
    last_line: int


def find_call_site(frame: FrameType) -> CallSite:
    """Return the call that a frame is at."""
    code = frame.f_code
    first, last, _, _ = next(islice(code.co_positions(), frame.f_lasti // 2, None), (None,) * 4)
    lines = linecache.getlines(code.co_filename, frame.f_globals)
    path = format_path(Path(code.co_filename))
    return CallSite(path, "".join(lines), first or frame.f_lineno, max(first or 0, last or 0, frame.f_lineno))


def read_claims(claims: Sequence[str], call_site: CallSite) -> tuple[ParsedFile, tuple[s.Expectation, ...]]:
    """Parse and check claims; positions are in the text of the file that is returned. Raises ClaimError."""
    __tracebackhide__ = True
    text, places = _locate_claims(claims, call_site)
    expectations = []
    for claim, place in zip(claims, places, strict=True):
        parsed = parse_claim(re.sub(r"[^\n]", " ", text[:place]) + claim)
        problems = check_claim(parsed)
        if problems or parsed.expectation is None:
            raise ClaimError(
                f"this is no claim\n{render_to_string(render_diagnostics(call_site.path, text, problems)).rstrip()}"
            )
        expectations.append(parsed.expectation)
    return ParsedFile(call_site.path, text, (), ()), tuple(expectations)


def _locate_claims(claims: Sequence[str], call_site: CallSite) -> tuple[str, list[int]]:
    """Find claims in the code of a call; where one is put together there, they stand in place of its first line."""
    lines = call_site.text.splitlines(keepends=True)
    start, end = (sum(map(len, lines[:number])) for number in (call_site.first_line - 1, call_site.last_line))
    places = []
    for claim in claims:
        found = re.compile(rf"(?P<quote>[\"']){re.escape(claim)}(?P=quote)").search(call_site.text, start, end)
        if found is None:
            break
        places.append(found.start() + 1)
        start = found.end()
    if len(places) == len(claims):
        return call_site.text, places
    text, places = "\n" * (call_site.first_line - 1), []
    for claim in claims:
        places.append(len(text))
        text += f"{claim}, "
    return text.removesuffix(", "), places
