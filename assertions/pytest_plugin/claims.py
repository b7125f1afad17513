"""Claims in the source code of a test, with their positions."""

from __future__ import annotations

import linecache
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import FrameType

from msgspec import Struct

from spanproof.assertions.pytest_plugin.rendering import render_to_string
from spanproof.assertions.reports.terminal import render_diagnostics
from spanproof.assertions.run.proof_files import format_path
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile, parse_claim


class ClaimError(ValueError):
    """Invalid claim; the message shows the position."""


class CallSite(Struct, frozen=True):
    """A call in Python code: the path and text of its file, and its lines, counted from 1."""

    path: str
    text: str
    first_line: int
    last_line: int


def find_call_site(frame: FrameType) -> CallSite:
    """Return the call that a frame executes."""
    code = frame.f_code
    first, last, _, _ = next(islice(code.co_positions(), frame.f_lasti // 2, None), (None,) * 4)
    lines = linecache.getlines(code.co_filename, frame.f_globals)
    path = format_path(Path(code.co_filename))
    return CallSite(path, "".join(lines), first or frame.f_lineno, max(first or 0, last or 0, frame.f_lineno))


def read_claims(claims: Sequence[str], call_site: CallSite) -> tuple[ParsedFile, tuple[s.Expectation, ...]]:
    """Parse and check claims; their positions refer to the text of the returned file. Raises ClaimError."""
    __tracebackhide__ = True
    text, offsets = _locate_claims(claims, call_site)
    expectations = []
    for claim, offset in zip(claims, offsets, strict=True):
        parsed = parse_claim(re.sub(r"[^\n]", " ", text[:offset]) + claim)
        problems = check_claim(parsed)
        if problems or parsed.expectation is None:
            raise ClaimError(
                f"this is not a claim\n{render_to_string(render_diagnostics(call_site.path, text, problems)).rstrip()}"
            )
        expectations.append(parsed.expectation)
    return ParsedFile(call_site.path, text, (), ()), tuple(expectations)


def _locate_claims(claims: Sequence[str], call_site: CallSite) -> tuple[str, list[int]]:
    """Return a text and the offsets of the claims in it.

    The text is that of the file if all claims are literals of the call. Otherwise the claims replace its first line.
    """
    lines = call_site.text.splitlines(keepends=True)
    start, end = (sum(map(len, lines[:number])) for number in (call_site.first_line - 1, call_site.last_line))
    offsets = []
    for claim in claims:
        match = re.compile(rf"(?P<quote>[\"']){re.escape(claim)}(?P=quote)").search(call_site.text, start, end)
        if match is None:
            break
        offsets.append(match.start() + 1)
        start = match.end()
    if len(offsets) == len(claims):
        return call_site.text, offsets
    text, offsets = "\n" * (call_site.first_line - 1), []
    for claim in claims:
        offsets.append(len(text))
        text += f"{claim}, "
    return text.removesuffix(", "), offsets
