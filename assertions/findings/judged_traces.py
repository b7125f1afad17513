"""Which traces claims are about, and how complete they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SelectedTraces:
    """The traces to judge.

    ``settled`` says for each whether anything is still to come; ``live``, that there is still time for it.
    ``missing`` says in words what has not come.
    """

    settled: Mapping[str, bool]
    live: bool = False
    missing: tuple[str, ...] = ()

    @property
    def incomplete(self) -> int:
        """How many of the traces something is still to come of."""
        return sum(not done for done in self.settled.values())


@dataclass(frozen=True, slots=True)
class TraceWindow:
    """The traces of a ``given``: since when, how many, and how many of them are incomplete."""

    begin_ns: int
    traces: int
    incomplete: int
    live: Final[bool] = False

    @property
    def missing(self) -> tuple[str, ...]:
        """What has not come, in words."""
        return (f"{self.incomplete} of {self.traces} traces are not complete",) if self.incomplete else ()
