"""Circuit breakers as SQL: one finding for each time that the consecutive failures of a caller reach the limit."""

from __future__ import annotations

from dataclasses import replace

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.conditions import SqlParameters, compile_limit
from spanproof.query_lang.compile.duckdb_dialect import SQL
from spanproof.query_lang.compile.plan import Plan
from spanproof.query_lang.compile.selections import select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

ATTEMPT_TOO_EARLY, TOO_MANY_PROBES = 1, 2

# Possible markers of an open circuit in a span: names of its attributes (except those with the value false) and of its
# events, and types of its exceptions, with and without their package.
_EXCEPTION_TYPE_SQL = SQL.attribute("event.attributes", "exception.type")
SPAN_MARKERS_SQL = " || ".join(
    (
        SQL.enabled_attributes("s.attributes"),
        SQL.map_list("s.events", "event", "event.name"),
        SQL.map_list("s.events", "event", _EXCEPTION_TYPE_SQL),
        SQL.map_list("s.events", "event", SQL.extract(_EXCEPTION_TYPE_SQL, "[^.]*$")),
    )
)


def compile_circuit(claim: s.Circuit, bindings: Bindings) -> Plan:
    """Compile ``circuit``, judged per caller instance (the resource of its client spans) over all selected traces.

    ``value`` is the time from the moment when the circuit should have opened to the next attempt. ``note`` is
    [reason, number of probes until one succeeded]. ``ok`` is NULL if the caller was idle in that period:
    it served no request, and no span has a marker of an open circuit.
    """
    assert isinstance(claim.call, s.CallSelection)  # noqa: S101 (checked before)
    rows = select_rows(replace(claim.call, attempts=True), SqlParameters(), bindings)
    # a bare call has no client span: the parent of the server span belongs to the caller
    rows.tables.append("LEFT JOIN topology caller ON caller.span_key = c.client_key")
    rows.tables.append(
        "LEFT JOIN (SELECT child.span_key, parent.resource_key FROM topology child"
        " JOIN topology parent ON parent.span_key = child.parent_key"
        " WHERE child.span_key IN (SELECT server_key FROM attempts WHERE shape = 'bare')"
        ") server_parent ON server_parent.span_key = c.server_key AND c.client_key IS NULL"
    )
    attempts = rows.build_select(
        "c.trace_id, c.start_ns, c.end_ns, c.error, c.caller, coalesce(c.client_key, c.server_key) AS span_key,"
        " coalesce(caller.resource_key, server_parent.resource_key) AS resource_key"
    )
    failures, holds, probes = "1", "0", "NULL"
    for clause in claim.clauses:
        match clause:
            case s.OpensAfter():
                failures = compile_limit(clause.failures, bindings, rows.parameters)
            case s.Limit(name="holds"):
                holds = compile_limit(clause.value, bindings, rows.parameters)
            case s.Limit():
                probes = compile_limit(clause.value, bindings, rows.parameters)
    sql = f"""
    WITH attempts AS ({attempts}),
    ordered_attempts AS (
        SELECT *, row_number() OVER (PARTITION BY resource_key ORDER BY start_ns, end_ns, span_key) AS ordinal
        FROM attempts
    ),
    numbered_failures AS (  -- consecutive failures have the same number of successes before them
        SELECT *, ordinal - row_number() OVER (PARTITION BY resource_key ORDER BY ordinal) AS streak
        FROM ordered_attempts WHERE error
    ),
    streaks AS (
        SELECT *, row_number() OVER (PARTITION BY resource_key, streak ORDER BY ordinal) AS failure_number
        FROM numbered_failures
    ),
    openings AS (
        SELECT resource_key, caller, streak, ordinal, trace_id, span_key, start_ns, end_ns AS open_ns
        FROM streaks WHERE failure_number = {failures}
    ),
    last_successes AS (
        SELECT resource_key, max(ordinal) AS ordinal FROM ordered_attempts WHERE NOT error GROUP BY resource_key
    ),
    checked_openings AS (
        SELECT
            o.*,
            (SELECT min(a.start_ns) FROM attempts a
                WHERE a.resource_key = o.resource_key AND a.start_ns >= o.open_ns) AS next_ns,
            (SELECT count(*) FROM streaks a
                WHERE a.resource_key = o.resource_key AND a.streak = o.streak AND a.start_ns >= o.open_ns + {holds})
            + (SELECT count(*) FROM last_successes a
                WHERE a.resource_key = o.resource_key AND a.ordinal > o.ordinal) AS probes,
            EXISTS (
                SELECT 1 FROM selected sel JOIN topology t ON t.trace_id = sel.trace_id AND t.is_entry
                WHERE t.resource_key = o.resource_key AND t.start_ns >= o.open_ns AND t.start_ns < o.open_ns + {holds}
            ) AS served
        FROM openings o
    ),
    marked_openings AS (
        SELECT DISTINCT o.resource_key, o.open_ns
        FROM (SELECT resource_key, open_ns FROM checked_openings WHERE NOT served) o
        JOIN spans s ON s.resource_key = o.resource_key AND s.end_ns >= o.open_ns AND s.start_ns < o.open_ns + {holds}
        SEMI JOIN selected sel ON sel.trace_id = s.trace_id
        WHERE {SQL.have_common_element(SPAN_MARKERS_SQL, "(SELECT circuit_markers FROM rules)")}
    )
    SELECT
        trace_id,
        CASE
            WHEN next_ns < j.open_ns + {holds} THEN false
            WHEN NOT served AND m.open_ns IS NULL AND {holds} > 0 THEN NULL
            ELSE coalesce(probes <= {probes}, true)
        END AS ok,
        next_ns - j.open_ns AS value, [span_key] AS witness, start_ns AS rank,
        [CASE WHEN next_ns < j.open_ns + {holds} THEN {ATTEMPT_TOO_EARLY} ELSE {TOO_MANY_PROBES} END, probes] AS note
    FROM checked_openings j
    LEFT JOIN marked_openings m ON m.resource_key = j.resource_key AND m.open_ns = j.open_ns
    """
    reason = "the caller served no request while the circuit should have been open"
    return Plan(
        sql,
        rows.parameters.values,
        "all",
        ValueType("duration"),
        is_stable=False,
        needs_occasion=True,
        undecided_reason=reason,
    )
