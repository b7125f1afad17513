"""The traces to judge, and the temporary tables that list them for queries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

from spanproof.assertions.findings.judged_traces import SelectedTraces, TraceWindow
from spanproof.collector.traces.completeness import mark_incomplete_traces
from spanproof.collector.traces.retention import find_last_expired_start_ns
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.windows import compile_window, compute_bounds
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import duckdb

MAX_INCOMPLETE_FRACTION: Final = 0.01
COMPLETE_TRACES_SQL: Final = """
CREATE OR REPLACE TEMP TABLE {table} AS
SELECT trace_id, true AS settled, true AS trusting FROM judged WHERE trace_id NOT IN (FROM incomplete)
"""


class TraceSelection:
    """The selected traces, in the temporary tables ``selected`` and ``complete``, and those of a ``baseline``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.selected: SelectedTraces | TraceWindow = SelectedTraces({})
        self.baseline: TraceWindow | None = None
        self.has_baseline = False

    def clear_counts(self) -> None:
        """Drop what was counted in the traces that were selected before."""

    @property
    def is_settled(self) -> bool:
        """Return whether all selected traces are complete."""
        return self.selected.incomplete == 0

    @property
    def is_nearly_complete(self) -> bool:
        """Return whether the complete traces of a window suffice for numbers: at most 1 % are incomplete."""
        window = self.selected
        return isinstance(window, TraceWindow) and window.incomplete <= window.traces * MAX_INCOMPLETE_FRACTION

    def select_window(self, given: s.Given, bindings: Bindings) -> TraceWindow:
        """Select the traces of a ``given``, or the complete traces of a ``compare baseline``."""
        now_ns = time.time_ns()
        sql, parameters = compile_window(given, bindings, now_ns)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {sql}", parameters)
        growing = mark_incomplete_traces(self.connection)
        row = self.connection.execute(
            "SELECT count(*), count(*) FILTER (trace_id IN (FROM incomplete)) FROM judged"
        ).fetchone()
        begin_ns, end_ns = compute_bounds(given.window, bindings, now_ns)
        traces, incomplete = row or (0, 0)
        window = TraceWindow(begin_ns, traces, incomplete, min(now_ns, end_ns or now_ns), growing)
        if given.baseline:
            self.baseline = window
            self.has_baseline = True
            self.clear_counts()
            self.connection.execute(COMPLETE_TRACES_SQL.format(table="baseline"))
            return window
        self.connection.execute(COMPLETE_TRACES_SQL.format(table="complete"))
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE selected AS SELECT trace_id, trace_id NOT IN (FROM incomplete) AS settled,"
            " true AS trusting FROM judged"
        )
        self.selected = window
        self.clear_counts()
        return window

    def select_baseline(self, traces: Sequence[str]) -> None:
        """Select the baseline traces."""
        self.has_baseline = True
        self.clear_counts()
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE baseline AS"
            " SELECT unnest($traces::UUID[]) AS trace_id, true AS settled, true AS trusting",
            {"traces": list(traces)},
        )

    def select_traces(self, selected: SelectedTraces) -> None:
        """Select the traces to judge."""
        self.selected = selected
        self.clear_counts()
        rows = list(selected.settled.items())
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE selected AS SELECT unnest($traces)::UUID AS trace_id,"
            " unnest($settled)::BOOLEAN AS settled, settled OR NOT $live AS trusting",
            {"traces": [trace for trace, _ in rows], "settled": [done for _, done in rows], "live": selected.live},
        )

    @contextmanager
    def restrict(self, settled: dict[UUID, bool]) -> Iterator[None]:
        """Select only these of the selected traces, given with whether each is settled, until the end of the block."""
        before = self.selected
        self.connection.execute("CREATE OR REPLACE TEMP TABLE unrestricted AS FROM selected")
        try:
            self.connection.execute(
                "CREATE OR REPLACE TEMP TABLE selected AS FROM unrestricted"
                " WHERE trace_id IN (SELECT unnest($kept::UUID[]))",
                {"kept": list(settled)},
            )
            self.selected = SelectedTraces(
                {trace.hex: is_settled for trace, is_settled in settled.items()}, before.live, before.missing
            )
            self.clear_counts()
            yield
        finally:
            self.connection.execute("CREATE OR REPLACE TEMP TABLE selected AS FROM unrestricted")
            self.connection.execute("DROP TABLE unrestricted")
            self.selected = before
            self.clear_counts()

    def measure_windows(self) -> dict[str, int]:
        """Return the lengths of the windows in nanoseconds, less the part whose traces were deleted."""
        lengths: dict[str, int] = {}
        for tables, window in ((("selected", "complete"), self.selected), (("baseline",), self.baseline)):
            if isinstance(window, TraceWindow):
                expired_ns = find_last_expired_start_ns(self.connection, window.begin_ns)
                begin_ns = max(window.begin_ns, expired_ns or window.begin_ns)
                lengths |= dict.fromkeys(tables, window.end_ns - begin_ns)
        return lengths
