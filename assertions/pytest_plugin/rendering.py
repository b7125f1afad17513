"""Rendering of reports in pytest: coloured in a terminal, and one line in the summary."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from msgspec import Struct
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter  # the argument of `toterminal`; it has no public name


class FailureLocation(Struct, frozen=True):
    """Position and message of a failure; pytest's summary and JUnit XML read it."""

    path: str
    lineno: int
    message: str

    def __str__(self) -> str:
        """Return the location as ``path:line: message``."""
        return f"{self.path}:{self.lineno}: {self.message}"


class RenderedFailure(Struct, frozen=True):
    """A rendered text in the form that pytest expects for failures."""

    text: Text
    reprcrash: FailureLocation

    def toterminal(self, writer: TerminalWriter) -> None:
        """Write the text to a terminal, with colours if it supports them."""
        writer.line(render_to_string(self.text, color=writer.hasmarkup).rstrip())

    def __str__(self) -> str:
        """Return the text without colours, for files and other processes."""
        return render_to_string(self.text).rstrip()


def render_to_string(text: Text, *, color: bool = False) -> str:
    """Return a rendered text as a string."""
    console = Console(
        file=io.StringIO(), force_terminal=color, color_system="standard" if color else None, soft_wrap=True,
        highlight=False, legacy_windows=False,
    )  # fmt: skip
    with console.capture() as captured:
        console.print(text, end="")
    return captured.get()
