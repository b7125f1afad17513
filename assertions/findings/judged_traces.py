"""The judged traces and their completeness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct


class SelectedTraces(Struct, frozen=True):
    """The traces to judge.

    ``settled`` maps each trace id to whether the trace is complete. ``live`` is true while more spans are awaited.
    ``missing`` describes the missing spans.
    """

    settled: Mapping[str, bool]
    live: bool = False
    missing: tuple[str, ...] = ()

    @property
    def incomplete(self) -> int:
        """Number of traces that are not settled."""
        return sum(not settled for settled in self.settled.values())


class TraceWindow(Struct, frozen=True):
    """The traces of a ``given``: the bounds of the window, and the numbers of all and of incomplete traces.

    ``growing`` further traces are left out, because spans of them still arrive.
    """

    begin_ns: int
    traces: int
    incomplete: int
    end_ns: int
    growing: int = 0
    live: Final[bool] = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Description of the missing spans."""
        if not self.incomplete:
            return ()
        traces, verb = "trace" if self.traces == 1 else "traces", "is" if self.incomplete == 1 else "are"
        return (f"{self.incomplete} of {self.traces} {traces} {verb} not complete",)
