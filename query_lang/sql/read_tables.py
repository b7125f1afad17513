"""Tables of calls, attempts and positions, as a reading of what is open sees them."""

from __future__ import annotations

from typing import Final

from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.sql.duckdb_dialect import SQL

_CALL_TABLES: Final = ("calls", "attempts")


def compile_table(name: str, reading: Reading) -> str:
    """Return the FROM item of a table, without an alias."""
    source = name
    if name in _CALL_TABLES and not reading.is_plain:
        joined = _compile_joined(reading)
        source = (
            f"(SELECT * FROM {name} WHERE doubt IS NULL OR {joined}"
            f" UNION ALL SELECT * FROM separate_{name} WHERE NOT {joined})"
        )
    if not reading.has_unfinished or name not in (*_CALL_TABLES, "topology"):
        return source
    length_ns = reading.unfinished_ns
    end_ns = f"coalesce(end_ns, start_ns + {length_ns})"
    replaced = f"{end_ns} AS end_ns"
    if name in _CALL_TABLES:
        served_ns = (
            f"(SELECT coalesce(served.end_ns, served.start_ns + {length_ns}) - served.start_ns"
            " FROM topology served WHERE served.span_key = server_key)"
        )
        is_seen_by_caller = "NOT arrived" if name == "attempts" else "tier <> 2"
        replaced += (
            f", {end_ns} - start_ns AS duration_ns, CASE WHEN network_ns IS NULL AND shape = 'paired'"
            f" AND {is_seen_by_caller} THEN {end_ns} - start_ns - {served_ns} ELSE network_ns END AS network_ns"
        )
    if name == "calls":
        replaced += f", coalesce(over_ns, {end_ns}) AS over_ns"
    return f"(SELECT {SQL.replace_columns(replaced)} FROM {source})"


def _compile_joined(reading: Reading) -> str:
    """Return the SQL that tests whether a call in doubt is read as one call."""
    possible = str(reading.is_joined).lower()
    if reading.declared:
        cases = " ".join(
            f"WHEN {_match('caller', call.caller)} AND {_match('callee', call.callee)} THEN {str(call.joined).lower()}"
            for call in reading.declared
        )
        possible = f"CASE {cases} ELSE {possible} END"
    redirects = str(reading.counts_redirects).lower()
    ended = str(not reading.is_endless).lower()
    return (
        f"(CASE doubt WHEN 'redirects' THEN {redirects} WHEN 'unended' THEN {ended}"
        f" WHEN 'possible unended' THEN {possible} AND {ended} ELSE {possible} END)"
    )


def _match(column: str, service: str) -> str:
    return "true" if service == "*" else f"{column} = {SQL.quote(service)}"
