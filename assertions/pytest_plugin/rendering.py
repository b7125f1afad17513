"""How pytest shows what the reports say: in colour where it has a terminal, in a line in its summary."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter  # what pytest hands to `toterminal`; it has no public name


@dataclass(frozen=True, slots=True)
class FailureLocation:
    """Where something is wrong, and what, in a line; pytest's summary and JUnit XML read this."""

    path: str
    lineno: int
    message: str

    def __str__(self) -> str:
        """As others print such places."""
        return f"{self.path}:{self.lineno}: {self.message}"


@dataclass(frozen=True, slots=True)
class RenderedFailure:
    """A rendered text, as pytest takes failures."""

    text: Text
    reprcrash: FailureLocation

    def toterminal(self, writer: TerminalWriter) -> None:
        """Write it for people."""
        writer.line(render_to_string(self.text, color=writer.hasmarkup).rstrip())

    def __str__(self) -> str:
        """Without colours, for files and other processes."""
        return render_to_string(self.text).rstrip()


def render_to_string(text: Text, *, color: bool = False) -> str:
    """Return a rendered text as it is printed."""
    console = Console(
        file=io.StringIO(), force_terminal=color, color_system="standard" if color else None, soft_wrap=True,
        highlight=False, legacy_windows=False,
    )  # fmt: skip
    with console.capture() as captured:
        console.print(text, end="")
    return captured.get()
