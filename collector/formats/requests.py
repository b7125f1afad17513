"""Serialized trace requests from files, with their location, so that an error can be found in the file."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

_SPAN_PATH: Final = re.compile(r"resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[(\d+)\]")


class LocatedRequest(Struct, frozen=True):
    """A request of bounded size from `location`; if `path` is set, its only spans are there."""

    body: bytes
    location: str
    path: str = ""
    first_span: int = 0

    def locate_problem(self, problem: str) -> str:
        """Return a problem that the decoder found in this request, with its location in the file."""
        if self.path:
            problem = _SPAN_PATH.sub(lambda match: f"{self.path}.spans[{self.first_span + int(match[1])}]", problem)
        return f"{self.location}: {problem}" if self.location else problem
