"""Circuit breakers as SQL: one finding for each time that the consecutive failures of a caller reach the limit."""

from __future__ import annotations

from msgspec.structs import replace

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import SqlParameters, compile_limit
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.selections import select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

ATTEMPT_TOO_EARLY, TOO_MANY_PROBES, OPENED_TOO_EARLY = 1, 2, 3

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


# The caller instance of a resource `r`.
_INSTANCE_SQL = (
    f"coalesce({SQL.attribute('r.attributes', 'service.instance.id')}, nullif(concat_ws(' ',"
    f" {SQL.attribute('r.attributes', 'host.name')}, {SQL.attribute('r.attributes', 'process.pid')}), ''), r.service)"
)
_UNDECIDED_REASON = (
    "the caller served no request that makes such an attempt while the circuit should have been open,"
    " or the traces end before that"
)


def compile_circuit(claim: s.Circuit, bindings: Bindings) -> Plan:
    """Compile ``circuit``, judged per caller instance over all selected traces: one finding per opening.

    ``value`` is the time from the opening to the next attempt. ``note`` is [reason, number]: the number of attempts
    that began before one of them had ended, or of the failures after which the circuit opened too early. ``ok`` is NULL
    if nothing shows that the caller was asked while the circuit was open: a request of an operation that makes such
    attempts, or a marker in a span. An opening that the traces do not show to its end counts only for violations, if
    another one is shown whole.
    """
    assert isinstance(claim.call, s.CallSelection)  # noqa: S101 (checked before)
    rows = select_rows(replace(claim.call, attempts=True), SqlParameters(reading=bindings.reading), bindings)
    parameters = rows.parameters
    topology = parameters.table("topology")
    # a bare call has no client span: the parent of the server span belongs to the caller
    rows.tables.append(
        f"LEFT JOIN {topology} server_position ON server_position.span_key = c.server_key AND c.client_key IS NULL"
        f" JOIN {topology} caller_position"
        " ON caller_position.span_key = coalesce(c.client_key, server_position.parent_key)"
        " JOIN resources r ON r.resource_key = caller_position.resource_key"
    )
    attempts = rows.build_select(
        "c.trace_id, c.start_ns, c.end_ns, c.retryable, c.caller_entry,"
        f" coalesce(c.client_key, c.server_key) AS span_key, {_INSTANCE_SQL} AS instance"
    )
    failures, holds, probes = "1", None, "NULL"
    for clause in claim.clauses:
        match clause:
            case s.OpensAfter():
                failures = compile_limit(clause.failures, bindings, parameters)
            case s.Limit(name="holds"):
                holds = compile_limit(clause.value, bindings, parameters)
            case s.Limit():
                probes = compile_limit(clause.value, bindings, parameters)
    open_until = "coalesce(n.next_ns, q.start_ns + 1)" if holds is None else f"o.open_ns + {holds}"
    openings = _FIRST_OPENINGS_SQL if holds is None else _WALKED_OPENINGS_SQL.format(holds=holds)
    sql = f"""
    WITH RECURSIVE
    attempts AS MATERIALIZED ({attempts}),
    in_order AS (  -- a circuit breaker counts results, in the order in which they come
        SELECT *, row_number() OVER (PARTITION BY instance ORDER BY end_ns, start_ns, span_key) AS ordinal FROM attempts
    ),
    numbered_failures AS (  -- consecutive failures have the same number of other results before them
        SELECT *, ordinal - row_number() OVER (PARTITION BY instance ORDER BY ordinal) AS streak
        FROM in_order WHERE retryable
    ),
    failures AS MATERIALIZED (
        SELECT *, row_number() OVER (PARTITION BY instance, streak ORDER BY ordinal) AS failure_number
        FROM numbered_failures
    ),
    entries AS MATERIALIZED (  -- the requests that the callers served
        SELECT {_INSTANCE_SQL} AS instance, t.service, t.name, t.span_key, t.start_ns,
            t.span_key IN (SELECT caller_entry FROM attempts) AS has_attempt
        FROM selected sel JOIN {topology} t ON t.trace_id = sel.trace_id AND t.is_entry
        JOIN resources r ON r.resource_key = t.resource_key
        WHERE (t.service, t.name) IN (
            SELECT (e.service, e.name) FROM {topology} e WHERE e.span_key IN (SELECT caller_entry FROM attempts)
        )
    ),
    states AS (  -- the last result before each request
        SELECT *,
            last_value(retryable IGNORE NULLS) OVER (PARTITION BY instance ORDER BY at_ns, is_request) AS is_failing
        FROM (
            SELECT instance, end_ns AS at_ns, retryable, 0 AS is_request, NULL AS service, NULL AS name,
                NULL AS has_attempt
            FROM attempts
            UNION ALL
            SELECT instance, start_ns, NULL, 1, service, name, has_attempt FROM entries
        )
    ),
    asked AS MATERIALIZED (  -- requests that make such an attempt when the circuit is closed, and made none
        SELECT instance, start_ns FROM entries
        WHERE NOT has_attempt AND (service, name) NOT IN (
            SELECT (service, name) FROM states WHERE is_request = 1 AND NOT has_attempt AND NOT is_failing
        )
        UNION ALL
        SELECT {_INSTANCE_SQL}, s.start_ns
        FROM (  -- few spans, as reading attributes takes long
            SELECT s.* FROM spans s SEMI JOIN selected USING (trace_id)
            WHERE s.service IN (
                    SELECT r.service FROM resources r WHERE {_INSTANCE_SQL} IN (SELECT instance FROM failures)
                )
                AND s.start_ns >= (SELECT min(end_ns) FROM failures)
        ) s
        JOIN resources r ON r.resource_key = s.resource_key
        WHERE {SQL.have_common_element(SPAN_MARKERS_SQL, "(SELECT circuit_markers FROM rules)")}
            AND {_INSTANCE_SQL} IN (SELECT instance FROM failures)
    ),
    full_failures AS (SELECT *, end_ns AS open_ns FROM failures WHERE failure_number = {failures}),
    {openings},
    checked AS (
        SELECT o.*, n.next_ns, n.first_end_ns,
            (SELECT count(*) FROM attempts a
                WHERE a.instance = o.instance AND a.start_ns >= o.open_ns
                    AND a.span_key <> o.span_key AND a.start_ns < n.first_end_ns) AS probes,
            EXISTS (
                SELECT 1 FROM asked q WHERE q.instance = o.instance AND q.start_ns >= o.open_ns
                    AND q.start_ns < {open_until}
            ) AS was_asked
        FROM openings o
        LEFT JOIN (
            SELECT p.instance, p.open_ns, min(a.start_ns) AS next_ns, min(a.end_ns) AS first_end_ns
            FROM openings p JOIN attempts a
                ON a.instance = p.instance AND a.start_ns >= p.open_ns AND a.span_key <> p.span_key
            GROUP BY ALL
        ) n ON n.instance = o.instance AND n.open_ns = o.open_ns
    ),
    judged_openings AS (
        SELECT *, {_compile_whole(holds, topology)} AS is_whole,
            CASE WHEN {_compile_early(holds)} THEN {ATTEMPT_TOO_EARLY} WHEN probes > {probes} THEN {TOO_MANY_PROBES} END
                AS reason
        FROM checked
    ),
    early_openings AS (  -- the caller was asked after fewer failures, and made no attempt
        SELECT f.*
        FROM failures f
        JOIN (
            SELECT e.instance, e.ordinal, min(a.start_ns) AS next_ns FROM failures e
            LEFT JOIN attempts a ON a.instance = e.instance AND a.start_ns >= e.end_ns
            WHERE e.failure_number < {failures} GROUP BY ALL
        ) n ON n.instance = f.instance AND n.ordinal = f.ordinal
        LEFT JOIN in_order following ON following.instance = f.instance AND following.ordinal = f.ordinal + 1
        WHERE f.failure_number < {failures}{_compile_early_hold(holds, topology)}
            AND NOT EXISTS (
                SELECT 1 FROM checked o WHERE o.instance = f.instance AND f.end_ns > o.open_ns
                    AND f.end_ns <= coalesce(o.first_end_ns, f.end_ns)
            )
            AND EXISTS (
                SELECT 1 FROM asked q WHERE q.instance = f.instance AND q.start_ns >= f.end_ns
                    AND q.start_ns < coalesce(least(n.next_ns, following.end_ns), q.start_ns + 1)
            )
    )
    SELECT
        trace_id, CASE WHEN reason IS NOT NULL THEN false WHEN is_whole AND was_asked THEN true END AS ok,
        next_ns - open_ns AS value, [span_key] AS witness, start_ns AS rank, [reason, probes] AS note
    FROM judged_openings
    WHERE is_whole OR reason IS NOT NULL OR NOT EXISTS (SELECT 1 FROM judged_openings WHERE is_whole AND was_asked)
    UNION ALL
    SELECT trace_id, false, NULL, [span_key], start_ns, [{OPENED_TOO_EARLY}, failure_number] FROM early_openings
    """
    return Plan(
        sql,
        parameters.values,
        "all",
        ValueType("duration"),
        is_stable=False,
        needs_occasion=True,
        undecided_reason=_UNDECIDED_REASON,
    )


# Without `holds`, an opening is judged only where enough failures come in a row: later failures are probes.
_FIRST_OPENINGS_SQL = "openings AS (SELECT instance, open_ns, trace_id, span_key, start_ns FROM full_failures)"
# After an opening, the first result closes the circuit or opens it again. The walk ends at a violation.
_WALKED_OPENINGS_SQL = f"""
    openings AS (
        SELECT instance, min(open_ns) AS open_ns, {SQL.first_by("trace_id", "open_ns")} AS trace_id,
            {SQL.first_by("span_key", "open_ns")} AS span_key, {SQL.first_by("start_ns", "open_ns")} AS start_ns
        FROM full_failures GROUP BY instance
        UNION ALL
        SELECT x.instance, CASE WHEN x.first_failed THEN x.first_end_ns ELSE min(f.open_ns) END,
            CASE WHEN x.first_failed THEN x.trace_id ELSE {SQL.first_by("f.trace_id", "f.open_ns")} END,
            CASE WHEN x.first_failed THEN x.span_key ELSE {SQL.first_by("f.span_key", "f.open_ns")} END,
            CASE WHEN x.first_failed THEN x.start_ns ELSE {SQL.first_by("f.start_ns", "f.open_ns")} END
        FROM (
            SELECT o.instance, o.open_ns, min(a.start_ns) AS next_ns, min(a.end_ns) AS first_end_ns,
                {SQL.first_by("a.retryable", "(a.end_ns, a.span_key)")} AS first_failed,
                {SQL.first_by("a.trace_id", "(a.end_ns, a.span_key)")} AS trace_id,
                {SQL.first_by("a.span_key", "(a.end_ns, a.span_key)")} AS span_key,
                {SQL.first_by("a.start_ns", "(a.end_ns, a.span_key)")} AS start_ns
            FROM openings o JOIN attempts a
                ON a.instance = o.instance AND a.start_ns >= o.open_ns AND a.span_key <> o.span_key
            GROUP BY o.instance, o.open_ns
        ) x
        LEFT JOIN full_failures f ON f.instance = x.instance AND f.open_ns > x.first_end_ns AND NOT x.first_failed
        WHERE x.next_ns >= x.open_ns + {{holds}}
        GROUP BY x.instance, x.first_failed, x.first_end_ns, x.trace_id, x.span_key, x.start_ns
        HAVING x.first_failed OR min(f.open_ns) IS NOT NULL
    )"""


def _compile_whole(holds: str | None, topology: str) -> str:
    """Return the SQL that tests whether the traces show an opening to its end."""
    if holds is None:
        return "was_asked"
    return f"coalesce(next_ns, {_compile_last_end(topology)}) >= open_ns + {holds}"


def _compile_early_hold(holds: str | None, topology: str) -> str:
    """Return the condition under which no attempt after a failure shows an opening, not just a request without one."""
    if holds is None:
        return ""
    return f" AND coalesce(n.next_ns, {_compile_last_end(topology)}) >= f.end_ns + {holds}"


def _compile_last_end(topology: str) -> str:
    return f"(SELECT max(t.end_ns) FROM selected sel JOIN {topology} t ON t.trace_id = sel.trace_id)"


def _compile_early(holds: str | None) -> str:
    """Return the SQL that tests whether the caller went on calling while the circuit should have been open."""
    return "NOT was_asked AND next_ns IS NOT NULL" if holds is None else f"coalesce(next_ns < open_ns + {holds}, false)"
