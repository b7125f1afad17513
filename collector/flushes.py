"""How often services export, as far as the store has seen; said of what has not arrived in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spanproof.collector.completeness import Missing, State

if TYPE_CHECKING:
    import duckdb

LEAST_GAPS: Final = 2
# Spans that were exported together are stored together, or nearly so.
TOGETHER_NS: Final = 50_000_000
# The shortest gap of several is nearest to the exporter's schedule: where there is nothing to send, it sends nothing.
FLUSHES: Final = """
SELECT count(gap), quantile_disc(gap, 0.25) FROM (
    SELECT at_ns - lag(at_ns) OVER (ORDER BY at_ns) AS gap FROM (
        SELECT DISTINCT arrived_ns AS at_ns FROM spans WHERE service = $service ORDER BY at_ns DESC LIMIT 200
    )
) WHERE gap > $together
"""


def find_flushes(connection: duckdb.DuckDBPyConnection, state: State) -> tuple[str, ...]:
    """Say what is missing, and of each service whose spans are, how often it exports."""
    ((anything,),) = connection.execute("SELECT exists(FROM spans)").fetchall()
    return tuple(str(missing) + _explain(connection, missing, anything=anything) for missing in state.missing)


def read_flush_ns(connection: duckdb.DuckDBPyConnection, service: str) -> int | None:
    """Return about how much time passes between two exports of a service, or None where too little has come of it."""
    ((n, gap_ns),) = connection.execute(FLUSHES, {"service": service, "together": TOGETHER_NS}).fetchall()
    return int(gap_ns) if n >= LEAST_GAPS else None


def _explain(connection: duckdb.DuckDBPyConnection, missing: Missing, *, anything: bool) -> str:
    if missing.kind == "spans" and not anything:
        return ": nothing has been exported to this collector yet"
    if missing.kind != "answer" or missing.callee is None:
        return ""
    flush_ns = read_flush_ns(connection, missing.callee)
    often = f"; its exporter flushes about every {_round(flush_ns)}" if flush_ns is not None else ""
    return f": `{missing.callee}` exported nothing of it{often}"


def _round(ns: int) -> str:
    return f"{ns / 1e9:.0f} s" if ns >= 10**10 else f"{ns / 1e9:.1g} s"
