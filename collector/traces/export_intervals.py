"""How often services export, as far as the store has seen; said of what has not arrived in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spanproof.collector.traces.completeness import Completeness, MissingSpans

if TYPE_CHECKING:
    import duckdb

MIN_GAPS: Final = 2
# Spans that were exported together are stored together, or nearly so.
SAME_EXPORT_NS: Final = 50_000_000
# The shortest gap of several is nearest to the exporter's schedule: where there is nothing to send, it sends nothing.
EXPORT_INTERVAL_SQL: Final = """
SELECT count(gap), quantile_disc(gap, 0.25) FROM (
    SELECT at_ns - lag(at_ns) OVER (ORDER BY at_ns) AS gap FROM (
        SELECT DISTINCT arrived_ns AS at_ns FROM spans WHERE service = $service ORDER BY at_ns DESC LIMIT 200
    )
) WHERE gap > $together
"""


def describe_missing_spans(connection: duckdb.DuckDBPyConnection, completeness: Completeness) -> tuple[str, ...]:
    """Say what is missing, and of each service whose spans are, how often it exports."""
    ((anything,),) = connection.execute("SELECT exists(FROM spans)").fetchall()
    return tuple(
        str(missing) + _describe_export(connection, missing, has_spans=anything) for missing in completeness.missing
    )


def read_export_interval_ns(connection: duckdb.DuckDBPyConnection, service: str) -> int | None:
    """Return about how much time passes between two exports of a service, or None where too little has come of it."""
    ((n, gap_ns),) = connection.execute(
        EXPORT_INTERVAL_SQL, {"service": service, "together": SAME_EXPORT_NS}
    ).fetchall()
    return int(gap_ns) if n >= MIN_GAPS else None


def _describe_export(connection: duckdb.DuckDBPyConnection, missing: MissingSpans, *, has_spans: bool) -> str:
    if missing.kind == "spans" and not has_spans:
        return ": nothing has been exported to this collector yet"
    if missing.kind != "answer" or missing.callee is None:
        return ""
    flush_ns = read_export_interval_ns(connection, missing.callee)
    often = f"; its exporter flushes about every {_format_seconds(flush_ns)}" if flush_ns is not None else ""
    return f": `{missing.callee}` exported nothing of it{often}"


def _format_seconds(ns: int) -> str:
    return f"{ns / 1e9:.0f} s" if ns >= 10**10 else f"{ns / 1e9:.1g} s"
