"""Completeness of traces: which spans are missing, and whether they are known to exist."""

from __future__ import annotations

import time
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    import duckdb

DEFAULT_IDLE_NS: Final = 300_000_000
UNKNOWN_LATENESS_IDLE_NS: Final = 1_000_000_000
UNCERTAIN_IDLE_NS: Final = 5_000_000_000  # the OpenTelemetry SDKs export every 5 s by default

# How long after the root the last span arrived, at most, in the latest traces with the same root operations.
_LATENESS_SQL: Final = """
WITH roots AS (
    SELECT DISTINCT service, name FROM topology SEMI JOIN judged USING (trace_id) WHERE depth = 0 AND NOT orphan
),
earlier AS (
    SELECT t.trace_id, t.span_key FROM topology t SEMI JOIN roots USING (service, name)
    WHERE t.depth = 0 AND NOT t.orphan AND t.trace_id NOT IN (FROM judged)
    ORDER BY t.span_key DESC LIMIT 100
)
SELECT max(s.arrived_ns - r.arrived_ns)
FROM earlier e
JOIN spans r ON r.span_key = e.span_key
JOIN spans s ON s.trace_id = e.trace_id
"""

# The given traces, and the traces reached from them through messages and links.
RELATED_TRACES_SQL: Final = """
WITH RECURSIVE related AS (
    SELECT unnest($traces)::UUID AS trace_id
    UNION
    SELECT n.trace_id FROM related r JOIN next_traces n ON n.from_trace_id = r.trace_id
)
FROM related ORDER BY trace_id
"""


class MissingSpans(Struct, frozen=True):
    """Spans that have not arrived. ``is_certain``: they are known to exist."""

    kind: str
    is_certain: bool
    caller: str | None
    callee: str | None
    count: int

    def __str__(self) -> str:
        """Describe what is missing."""
        match self.kind:
            case "spans":
                return "no span of this trace has arrived"
            case "root":
                return "the span of the request itself has not arrived"
            case "parent":
                return f"`{self.caller}` sent the span `{self.callee}`, whose parent has not arrived"
            case "answer":
                return f"`{self.caller}` called `{self.callee}`, whose own span has not arrived"
            case "own":
                return "a service may still continue the trace that this run started"
            case "consumer":
                return f"no consumer has sent a span for a message from `{self.caller}`"
            case "uncovered":
                return f"`{self.caller}` waited for `{self.callee}` for longer than the spans of `{self.callee}` show"
            case _:
                return f"`{self.caller}` called `{self.callee}`, which may still send spans"


class Completeness(Struct, frozen=True):
    """State of traces that are judged together: their ids, the missing spans, the last arrival.

    ``lateness_ns`` is how long after the root the last span arrived in earlier traces of the same root operation, None
    if there are none.
    """

    trace_ids: tuple[str, ...]
    missing: tuple[MissingSpans, ...]
    last_arrived_ns: int | None
    lateness_ns: int | None = None

    def compute_settle_times_ns(self, idle_ns: int | None) -> SettleTimes | None:
        """Return when the traces are settled if no more spans arrive, or None if spans that exist are missing.

        `idle_ns` is the idle time before traces are settled. By default it is twice the lateness of earlier traces and
        at least 300 ms, or 1 s without earlier traces, or 5 s if it is unknown whether spans are missing.
        """
        if self.last_arrived_ns is None or any(missing.is_certain for missing in self.missing):
            return None
        if idle_ns is not None:
            return SettleTimes(self.last_arrived_ns + idle_ns, self.last_arrived_ns + idle_ns)
        idle_ns = UNKNOWN_LATENESS_IDLE_NS
        if self.lateness_ns is not None:
            idle_ns = max(DEFAULT_IDLE_NS, 2 * self.lateness_ns)
        if self.missing:
            idle_ns = max(idle_ns, UNCERTAIN_IDLE_NS)
        until_ns = self.last_arrived_ns + idle_ns
        return SettleTimes(until_ns, max(until_ns, self.last_arrived_ns + UNCERTAIN_IDLE_NS))


class SettleTimes(Struct, frozen=True):
    """When traces are settled, Unix time in nanoseconds.

    From ``absence_ns`` on, a claim that spans are absent may pass. From ``turnable_ns`` on, a verdict may be a failure
    that more spans could turn.
    """

    absence_ns: int
    turnable_ns: int


def find_related_traces(connection: duckdb.DuckDBPyConnection, *trace_ids: str) -> tuple[str, ...]:
    """Return the traces and all traces reached from them by messages and links, as last derived."""
    if not has_links(connection):
        return tuple(sorted(set(trace_ids)))
    related = connection.execute(RELATED_TRACES_SQL, {"traces": list(trace_ids)}).fetchall()
    return tuple(str(trace_id.hex) for (trace_id,) in related)


def has_links(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether any request or message arrived by a link. Without links, no trace leads to another."""
    ((any_link,),) = connection.execute("SELECT EXISTS (FROM entry_links)").fetchall()
    return bool(any_link)


def check_completeness(connection: duckdb.DuckDBPyConnection, trace_ids: tuple[str, ...]) -> Completeness:
    """Return the completeness of these traces, as last derived. Store their ids in table ``judged``."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE judged AS SELECT unnest($traces)::UUID AS trace_id", {"traces": trace_ids}
    )
    ((first_arrived_ns, last_arrived_ns),) = connection.execute(
        "SELECT min(arrived_ns), max(arrived_ns) FROM spans WHERE trace_id IN (FROM judged)"
    ).fetchall()
    if last_arrived_ns is None:
        return Completeness(trace_ids, (MissingSpans("spans", True, None, None, 0),), None)
    _find_missing(connection, growing_since_ns=first_arrived_ns)
    groups = connection.execute(
        "SELECT kind, certain, caller, callee, count(*) FROM missing"
        " GROUP BY ALL ORDER BY certain DESC, kind, caller, callee"
    ).fetchall()
    missing = tuple(MissingSpans(*group) for group in groups)
    lateness_ns = None
    if not any(each.is_certain for each in missing):
        ((lateness_ns,),) = connection.execute(_LATENESS_SQL).fetchall()
    return Completeness(trace_ids, missing, int(last_arrived_ns), lateness_ns)


def mark_incomplete_traces(connection: duckdb.DuckDBPyConnection) -> int:
    """Create the table ``incomplete(trace_id)``: traces of ``judged`` that miss spans known to exist.

    Traces that still grow are removed from ``judged``; return their number. A trace grows if a span arrived in the last
    300 ms, or in the last 5 s if spans are missing, or may be.
    """
    _find_missing(connection, growing_since_ns=time.time_ns() - UNCERTAIN_IDLE_NS)
    row = connection.execute(
        "DELETE FROM judged WHERE trace_id IN (SELECT trace_id FROM spans SEMI JOIN judged USING (trace_id)"
        " WHERE arrived_ns > $now - $long_idle"
        " GROUP BY trace_id HAVING max(arrived_ns) > $now - CASE WHEN trace_id IN (SELECT trace_id FROM missing)"
        " THEN $long_idle ELSE $idle END)",
        {"now": time.time_ns(), "long_idle": UNCERTAIN_IDLE_NS, "idle": DEFAULT_IDLE_NS},
    ).fetchone()
    connection.execute("CREATE OR REPLACE TEMP TABLE incomplete AS SELECT DISTINCT trace_id FROM missing WHERE certain")
    return int(row[0]) if row else 0


def _find_missing(connection: duckdb.DuckDBPyConnection, growing_since_ns: int) -> None:
    """Create the table ``missing``; ``uncovered`` time counts only in traces with a span since `growing_since_ns`."""
    connection.execute("SET VARIABLE long_past_ns = $past", {"past": time.time_ns() - UNCERTAIN_IDLE_NS})
    connection.execute("SET VARIABLE growing_since_ns = $since", {"since": growing_since_ns})
    connection.execute(_read_sql())


@cache
def _read_sql() -> str:
    return resources.files("spanproof.collector.traces").joinpath("sql", "missing.sql").read_text(encoding="utf-8")
