"""Circuit breakers as SQL: one finding for each time that a caller's failures in a row reached the limit."""

from __future__ import annotations

from dataclasses import replace

from spanproof.collector.otlp.semantic_conventions import make_attribute_sql
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.conditions import SqlParameters, compile_limit
from spanproof.query_lang.compile.plan import Plan
from spanproof.query_lang.compile.selections import select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

ATTEMPT_TOO_EARLY, TOO_MANY_PROBES = 1, 2

# What a span says that may mark an open circuit: its attributes, but for those that are false, its events, and the
# types of its exceptions, with and without their packages.
_EXCEPTION_TYPE_SQL = make_attribute_sql("event.attributes", "exception.type")
SPAN_MARKERS_SQL = (
    "list_filter(s.attributes.keys, lambda key, place: s.attributes.texts[place] <> 'false')"
    " || list_transform(s.events, lambda event: event.name)"
    f" || list_transform(s.events, lambda event: {_EXCEPTION_TYPE_SQL})"
    f" || list_transform(s.events, lambda event: regexp_extract({_EXCEPTION_TYPE_SQL}, '[^.]*$'))"
)


def compile_circuit(claim: s.Circuit, bindings: Bindings) -> Plan:
    """Compile ``circuit``: per caller instance (the resource of its client spans), over all selected traces.

    ``value`` is how soon the first attempt came after the circuit should have opened; ``note`` is [what is wrong,
    attempts until one succeeded]. ``ok`` is NULL where the caller was asked nothing meanwhile: it served no request
    then, and no mark of an open circuit was seen.
    """
    assert isinstance(claim.call, s.CallSelection)  # noqa: S101 (checked before)
    rows = select_rows(replace(claim.call, attempts=True), SqlParameters(), bindings)
    # a bare call has no client's span: its caller's is the one above the callee's
    rows.tables.append("LEFT JOIN topology caller ON caller.span_key = c.client_key")
    rows.tables.append(
        "LEFT JOIN (SELECT served.span_key, above.resource_key FROM topology served"
        " JOIN topology above ON above.span_key = served.parent_key"
        " WHERE served.span_key IN (SELECT server_key FROM attempts WHERE shape = 'bare')"
        ") above ON above.span_key = c.server_key AND c.client_key IS NULL"
    )
    attempts = rows.build_select(
        "c.trace_id, c.start_ns, c.end_ns, c.error, c.caller, coalesce(c.client_key, c.server_key) AS span_key,"
        " coalesce(caller.resource_key, above.resource_key) AS resource_key"
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
    placed AS (
        SELECT *, row_number() OVER (PARTITION BY resource_key ORDER BY start_ns, end_ns, span_key) AS place
        FROM attempts
    ),
    failures AS (  -- those in a row have the same number of successes before them
        SELECT *, place - row_number() OVER (PARTITION BY resource_key ORDER BY place) AS streak
        FROM placed WHERE error
    ),
    streaks AS (
        SELECT *, row_number() OVER (PARTITION BY resource_key, streak ORDER BY place) AS nth FROM failures
    ),
    opened AS (
        SELECT resource_key, caller, streak, place, trace_id, span_key, start_ns, end_ns AS open_ns
        FROM streaks WHERE nth = {failures}
    ),
    last_successes AS (
        SELECT resource_key, max(place) AS place FROM placed WHERE NOT error GROUP BY resource_key
    ),
    judged AS (
        SELECT
            o.*,
            (SELECT min(a.start_ns) FROM attempts a
                WHERE a.resource_key = o.resource_key AND a.start_ns >= o.open_ns) AS next_ns,
            (SELECT count(*) FROM streaks a
                WHERE a.resource_key = o.resource_key AND a.streak = o.streak AND a.start_ns >= o.open_ns + {holds})
            + (SELECT count(*) FROM last_successes a
                WHERE a.resource_key = o.resource_key AND a.place > o.place) AS probes,
            EXISTS (
                SELECT 1 FROM selected sel JOIN topology t ON t.trace_id = sel.trace_id AND t.is_entry
                WHERE t.resource_key = o.resource_key AND t.start_ns >= o.open_ns AND t.start_ns < o.open_ns + {holds}
            ) AS served
        FROM opened o
    ),
    marked AS (
        SELECT DISTINCT o.resource_key, o.open_ns
        FROM (SELECT resource_key, open_ns FROM judged WHERE NOT served) o
        JOIN spans s ON s.resource_key = o.resource_key AND s.end_ns >= o.open_ns AND s.start_ns < o.open_ns + {holds}
        SEMI JOIN selected sel ON sel.trace_id = s.trace_id
        WHERE list_has_any({SPAN_MARKERS_SQL}, (SELECT circuit_markers FROM rules))
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
    FROM judged j
    LEFT JOIN marked m ON m.resource_key = j.resource_key AND m.open_ns = j.open_ns
    """
    untold = "nothing was asked of the caller while the circuit should have been open"
    return Plan(
        sql,
        rows.parameters.values,
        "all",
        ValueType("duration"),
        is_stable=False,
        needs_occasion=True,
        undecided_reason=untold,
    )
