"""Is a trace complete? Says what is still to come, and whether that is known or only time can tell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

DEFAULT_IDLE_NS: Final = 300_000_000
UNCERTAIN_IDLE_NS: Final = 5_000_000_000  # the OpenTelemetry SDKs export every 5 s unless told otherwise

# The traces that messages and links lead to from some, and these themselves.
RELATED_TRACES_SQL: Final = """
WITH RECURSIVE reached AS (
    SELECT unnest($traces)::UUID AS trace_id
    UNION
    SELECT n.trace_id FROM reached r JOIN next_traces n ON n.from_trace_id = r.trace_id
)
FROM reached ORDER BY trace_id
"""


@dataclass(frozen=True, slots=True)
class MissingSpans:
    """Something still to come. ``sure``: it is known to exist."""

    kind: str
    is_certain: bool
    caller: str | None
    callee: str | None
    count: int

    def __str__(self) -> str:
        """Say what is missing, in words."""
        match self.kind:
            case "spans":
                return "no span of this trace has arrived"
            case "root":
                return "the span of the request itself has not arrived"
            case "parent":
                return f"`{self.caller}` sent `{self.callee}`, whose parent has not arrived"
            case "answer":
                return f"`{self.caller}` called `{self.callee}`, whose own span has not arrived"
            case "own":
                return "whether a service goes on with our own trace, too, only time can tell"
            case "consumer":
                return f"a message of `{self.caller}` has not been seen to arrive"
            case _:
                return f"`{self.caller}` called `{self.callee}`, which may still send spans"


@dataclass(frozen=True, slots=True)
class Completeness:
    """How far traces have come: those judged together, what is missing, and when the last span arrived."""

    trace_ids: tuple[str, ...]
    missing: tuple[MissingSpans, ...]
    last_arrived_ns: int | None

    def compute_settle_time_ns(self, idle_ns: int | None) -> int | None:
        """Return when they are settled if nothing more arrives; None if something sure is missing.

        `quiet_ns` is how long nothing may arrive: by default 300 ms, or 5 s when only time can tell whether
        something is still to come.
        """
        if self.last_arrived_ns is None or any(missing.is_certain for missing in self.missing):
            return None
        default = UNCERTAIN_IDLE_NS if self.missing else DEFAULT_IDLE_NS
        return self.last_arrived_ns + (default if idle_ns is None else idle_ns)


def find_related_traces(connection: duckdb.DuckDBPyConnection, *trace_ids: str) -> tuple[str, ...]:
    """Return traces and those that messages and links lead to from them, as derived last."""
    if not has_links(connection):
        return tuple(sorted(set(trace_ids)))
    found = connection.execute(RELATED_TRACES_SQL, {"traces": list(trace_ids)}).fetchall()
    return tuple(str(trace_id.hex) for (trace_id,) in found)


def has_links(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether any request or message has come by a link: without one, no trace leads to another."""
    ((linked,),) = connection.execute("SELECT EXISTS (FROM entry_links)").fetchall()
    return bool(linked)


def check_completeness(connection: duckdb.DuckDBPyConnection, trace_ids: tuple[str, ...]) -> Completeness:
    """Say how far these traces have come, as derived last; they are in the table ``judged``, too."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE judged AS SELECT unnest($traces)::UUID AS trace_id", {"traces": trace_ids}
    )
    row = connection.execute("SELECT max(arrived_ns) FROM spans WHERE trace_id IN (FROM judged)").fetchone()
    if row is None or row[0] is None:
        return Completeness(trace_ids, (MissingSpans("spans", True, None, None, 0),), None)
    _find_missing(connection)
    found = connection.execute(
        "SELECT kind, sure, caller, callee, count(*) FROM missing GROUP BY ALL ORDER BY sure DESC, kind, caller, callee"
    ).fetchall()
    return Completeness(trace_ids, tuple(MissingSpans(*each) for each in found), int(row[0]))


def mark_incomplete_traces(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table ``incomplete(trace_id)``: those of ``judged`` that lack something sure.

    Traces that are still growing are taken out of ``judged``: those for which something has arrived in the last
    300 ms, or, where only time can tell whether something is still to come, in the last 5 s.
    """
    _find_missing(connection)
    connection.execute(
        "DELETE FROM judged WHERE trace_id IN (SELECT trace_id FROM spans SEMI JOIN judged USING (trace_id)"
        " WHERE arrived_ns > $now - $patience"
        " GROUP BY trace_id HAVING max(arrived_ns) > $now - CASE WHEN trace_id IN (SELECT trace_id FROM missing)"
        " THEN $patience ELSE $quiet END)",
        {"now": time.time_ns(), "patience": UNCERTAIN_IDLE_NS, "quiet": DEFAULT_IDLE_NS},
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE incomplete AS SELECT DISTINCT trace_id FROM missing WHERE sure")


def _find_missing(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET VARIABLE long_past_ns = $past", {"past": time.time_ns() - UNCERTAIN_IDLE_NS})
    connection.execute(_read_sql())


@cache
def _read_sql() -> str:
    return resources.files("spanproof.collector.traces").joinpath("sql", "missing.sql").read_text(encoding="utf-8")
