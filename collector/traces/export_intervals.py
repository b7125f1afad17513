"""Export intervals of services, shown beside the spans that have not arrived."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from spanproof.collector.traces.completeness import Completeness, MissingSpans

if TYPE_CHECKING:
    import duckdb

MIN_GAPS: Final = 2
# Spans of one export are stored at almost the same time.
SAME_EXPORT_NS: Final = 50_000_000
_RECENT_NS: Final = 60_000_000_000
_RECENT_TRACES_SQL: Final = (
    "SELECT count(DISTINCT trace_id) FROM spans WHERE arrived_ns > $since AND trace_id NOT IN (FROM judged)"
)
# A short gap is closest to the exporter's schedule: without spans there is no export, so many gaps are longer.
EXPORT_INTERVAL_SQL: Final = """
SELECT count(gap), quantile_disc(gap, 0.25) FROM (
    SELECT at_ns - lag(at_ns) OVER (ORDER BY at_ns) AS gap FROM (
        SELECT DISTINCT arrived_ns AS at_ns FROM spans WHERE service = $service ORDER BY at_ns DESC LIMIT 200
    )
) WHERE gap > $same_export
"""


def describe_missing_spans(connection: duckdb.DuckDBPyConnection, completeness: Completeness) -> tuple[str, ...]:
    """Return a description of each kind of missing spans, with the service's export interval."""
    ((has_spans,),) = connection.execute("SELECT exists(FROM spans)").fetchall()
    return tuple(
        str(missing) + _describe_export(connection, missing, has_spans=has_spans) for missing in completeness.missing
    )


def read_export_interval_ns(connection: duckdb.DuckDBPyConnection, service: str) -> int | None:
    """Return the approximate export interval of a service, or None if it has too few exports."""
    ((gap_count, gap_ns),) = connection.execute(
        EXPORT_INTERVAL_SQL, {"service": service, "same_export": SAME_EXPORT_NS}
    ).fetchall()
    return int(gap_ns) if gap_count >= MIN_GAPS else None


def _describe_export(connection: duckdb.DuckDBPyConnection, missing: MissingSpans, *, has_spans: bool) -> str:
    if missing.kind == "spans" and not has_spans:
        return ": nothing has been exported to this collector yet"
    if missing.kind == "spans":
        ((others,),) = connection.execute(_RECENT_TRACES_SQL, {"since": time.time_ns() - _RECENT_NS}).fetchall()
        count = "one other trace" if others == 1 else f"{others} other traces"
        return f", but spans of {count} have: is traceparent passed on?" if others else ""
    if missing.kind == "parent":
        return f" (if something in front of `{missing.caller}` rewrites traceparent: --edge {missing.caller})"
    if missing.kind != "answer" or missing.callee is None:
        return ""
    interval_ns = read_export_interval_ns(connection, missing.callee)
    interval = f"; its exporter flushes about every {_format_seconds(interval_ns)}" if interval_ns is not None else ""
    return f": `{missing.callee}` exported nothing of it{interval}"


def _format_seconds(ns: int) -> str:
    return f"{ns / 1e9:.0f} s" if ns >= 10**10 else f"{ns / 1e9:.1g} s"
