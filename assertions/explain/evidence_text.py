"""Parts of explanations that are read from the spans behind a finding."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

from spanproof.assertions.explain import units
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.critical_path import compile_shares

if TYPE_CHECKING:
    import duckdb

    from spanproof.assertions.findings.finding_counts import Finding


def blame_part(connection: duckdb.DuckDBPyConnection, trace_id: str, bindings: Bindings, *, has_baseline: bool) -> str:
    """Return the part of a critical path that grew most against the baseline, or else the largest, as a suffix."""
    baseline = (
        f"SELECT service, avg(value) AS value FROM ({compile_shares(bindings, 'baseline')}) GROUP BY service"  # noqa: S608 (compiled)
        if has_baseline
        else "SELECT NULL::VARCHAR AS service, NULL::DOUBLE AS value"
    )
    row = connection.execute(
        f"SELECT p.service, p.value, b.value FROM ({compile_shares(bindings, 'selected')}) p"  # noqa: S608 (compiled)
        f" LEFT JOIN ({baseline}) b ON b.service = p.service WHERE p.trace_id = $trace::UUID"
        " ORDER BY p.value - coalesce(b.value, 0) DESC, p.service LIMIT 1",
        {"trace": trace_id},
    ).fetchone()
    if row is None:
        return ""
    service, value, before = row
    if before is None:
        return f"; the largest part is `{service}` with {units.format_duration(value)}"
    return f"; `{service}` grew most, from {units.format_duration(round(before))} to {units.format_duration(value)}"


def describe_difference(connection: duckdb.DuckDBPyConnection, sample: Finding | None) -> str:
    """Return how a later request differs from a failed one that was not retried, as a suffix."""
    if sample is None or not sample.witness:
        return ""
    row = connection.execute(
        "SELECT kept_apart FROM combined_calls"
        " WHERE coalesce(client_key, server_key) = $key AND kept_apart IS NOT NULL",
        {"key": sample.witness[-1]},
    ).fetchone()
    return f"; a later request is not counted as a retry: {row[0]}" if row else ""


def quote_status_message(connection: duckdb.DuckDBPyConnection, sample: Finding | None) -> str:
    """Return the status message of the first failed witness as a suffix; empty if there is none."""
    if sample is None or not sample.witness:
        return ""
    row = connection.execute(
        "SELECT s.status_message FROM spans s JOIN topology t ON t.span_key = s.span_key"
        " WHERE s.span_key IN (SELECT unnest($keys::BIGINT[])) AND t.error AND s.status_message <> ''"
        " ORDER BY s.start_ns, s.span_key LIMIT 1",
        {"keys": [key for key in sample.witness if key is not None]},
    ).fetchone()
    return f': "{shorten(row[0], 160)}"' if row else ""
