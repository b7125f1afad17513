"""Circuit breakers as SQL: one finding for each time that the consecutive failures of a caller reach the limit."""

from __future__ import annotations

from msgspec.structs import replace

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import compile_limit, compile_service_match
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import SqlParameters
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
_LAST_INSTANT = "9223372036854775807"  # later than any time
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
        " JOIN instances i ON i.resource_key = caller_position.resource_key"
    )
    attempts = rows.build_select(
        "c.trace_id, c.attempt_key, c.caller, c.start_ns, c.end_ns, c.retryable, c.caller_entry,"
        " coalesce(c.client_key, c.server_key) AS span_key, i.instance"
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
    caller = claim.call.caller.service
    callers = (
        "i.service IN (SELECT caller FROM attempts)"
        if caller is None
        else compile_service_match("i.service", caller, parameters, bindings)
    )
    count_starts, started = "", "NULL"
    # the attempts that start before the first result, less those before the wait and the failure itself
    if probes != "NULL":
        count_starts = "ASOF LEFT JOIN starts s ON s.instance = w.instance AND s.start_ns < w.first_end_ns"
        own = "CASE WHEN w.start_ns >= w.end_ns AND w.start_ns < w.first_end_ns THEN 1 ELSE 0 END"
        started = f"greatest(0, coalesce(s.started - w.started_before - {own}, 0))"
    open_until = f"coalesce(f.next_ns, {_LAST_INSTANT})" if holds is None else f"f.end_ns + {holds}"
    openings = (
        _FIRST_OPENINGS_SQL
        if holds is None
        else _WALKED_OPENINGS_SQL.format(holds=holds, first_opening=SQL.first_by("attempt_key", "ordinal"))
    )
    sql = f"""
    WITH RECURSIVE
    instances AS MATERIALIZED (  -- numbered, as numbers are sorted faster
        SELECT r.resource_key, r.service, dense_rank() OVER (ORDER BY {_INSTANCE_SQL}) AS instance FROM resources r
    ),
    attempts AS MATERIALIZED ({attempts}),
    failing AS MATERIALIZED (
        SELECT instance, min(end_ns) AS first_failure_ns, max(end_ns) AS last_failure_ns
        FROM attempts WHERE retryable GROUP BY instance
    ),
    recoveries AS MATERIALIZED (  -- the first result of the attempts after the last failure
        SELECT a.instance, min(a.end_ns) AS recovered_ns
        FROM attempts a JOIN failing f ON f.instance = a.instance AND a.start_ns >= f.last_failure_ns
        WHERE NOT a.retryable GROUP BY a.instance
    ),
    in_order AS MATERIALIZED (  -- a circuit breaker counts results, in the order in which they come
        SELECT a.*, row_number() OVER results AS ordinal, lead(end_ns) OVER results AS following_end_ns
        FROM attempts a JOIN failing USING (instance) LEFT JOIN recoveries USING (instance)
        -- what came before the first failure does not matter, nor what starts after the recovery from the last one
        WHERE end_ns >= first_failure_ns AND coalesce(start_ns <= recovered_ns, true)
        WINDOW results AS (PARTITION BY instance ORDER BY end_ns, start_ns, span_key, attempt_key)
    ),
    starts AS MATERIALIZED (  -- with the next start, and the first result of the attempts from this start on
        SELECT instance, start_ns, rank() OVER starts - 1 AS started_before, count(*) OVER starts AS started,
            CASE WHEN lag(start_ns) OVER starts = start_ns THEN start_ns ELSE lead(start_ns) OVER starts END AS next_ns,
            min(ordinal) OVER (PARTITION BY instance ORDER BY start_ns DESC) AS first_ordinal
        FROM in_order
        WINDOW starts AS (PARTITION BY instance ORDER BY start_ns)
    ),
    numbered_failures AS (  -- consecutive failures have the same number of other results before them
        SELECT *, ordinal - row_number() OVER (PARTITION BY instance ORDER BY ordinal) AS streak
        FROM in_order WHERE retryable
    ),
    ended_failures AS (  -- with the first start, and the first result, of the attempts that start afterwards
        SELECT f.*, row_number() OVER (PARTITION BY f.instance, f.streak ORDER BY f.ordinal) AS failure_number,
            CASE WHEN f.start_ns >= f.end_ns AND f.start_ns = s.start_ns THEN s.next_ns ELSE s.start_ns END AS next_ns,
            s.start_ns AS next_or_own_ns, s.started_before,
            CASE WHEN f.start_ns >= f.end_ns THEN other.ordinal ELSE s.first_ordinal END AS first_ordinal
        FROM numbered_failures f ASOF LEFT JOIN starts s ON s.instance = f.instance AND s.start_ns >= f.end_ns
        LEFT JOIN (  -- of a failure that starts when it ends, the first result of the others
            SELECT f.attempt_key, min(a.ordinal) AS ordinal
            FROM numbered_failures f
            JOIN in_order a ON a.instance = f.instance AND a.start_ns >= f.end_ns AND a.ordinal <> f.ordinal
            WHERE f.start_ns >= f.end_ns
            GROUP BY f.attempt_key
        ) other ON other.attempt_key = f.attempt_key
    ),
    failures AS MATERIALIZED (
        SELECT f.*, result.end_ns AS first_end_ns, result.retryable AS first_failed
        FROM ended_failures f
        LEFT JOIN in_order result ON result.instance = f.instance AND result.ordinal = f.first_ordinal
    ),
    full_failures AS (SELECT * FROM failures WHERE failure_number = {failures}),
    {openings},
    traces_end AS MATERIALIZED (  -- NULL if there is a next attempt after each failure
        SELECT max(t.end_ns) AS end_ns
        FROM (FROM selected WHERE EXISTS (FROM failures WHERE next_ns IS NULL)) sel
        JOIN {topology} t ON t.trace_id = sel.trace_id
    ),
    waits AS MATERIALIZED (  -- a request to the caller in these times shows that the circuit is open
        SELECT f.*, {open_until} AS until_ns, true AS is_opening
        FROM failures f SEMI JOIN openings o ON o.attempt_key = f.attempt_key
        UNION ALL
        SELECT * REPLACE (next_or_own_ns AS next_ns),
            coalesce(least(next_or_own_ns, following_end_ns), {_LAST_INSTANT}), false
        FROM failures WHERE failure_number < {failures} {_compile_early_hold(holds)}
    ),
    caller_spans AS MATERIALIZED (
        SELECT t.span_key, t.is_entry, t.name, t.start_ns, i.instance, i.service
        FROM {topology} t SEMI JOIN selected USING (trace_id)
        JOIN (SELECT * FROM instances i WHERE {callers}) i ON i.resource_key = t.resource_key
    ),
    entries AS MATERIALIZED (  -- the requests that the callers served
        SELECT *, span_key IN (SELECT caller_entry FROM attempts) AS has_attempt FROM caller_spans WHERE is_entry
    ),
    silent_entries AS MATERIALIZED (SELECT * FROM entries WHERE NOT has_attempt),
    unserved AS MATERIALIZED (  -- requests that make such an attempt when the circuit is closed, and made none
        SELECT instance, start_ns
        FROM silent_entries SEMI JOIN (SELECT service, name FROM entries WHERE has_attempt) USING (service, name)
        ANTI JOIN (  -- operations that made none after a result that was no failure
            SELECT e.service, e.name
            FROM silent_entries e
            JOIN (SELECT instance, min(end_ns) AS end_ns FROM attempts GROUP BY instance) result
                ON result.instance = e.instance AND result.end_ns <= e.start_ns
            LEFT JOIN failing f ON f.instance = e.instance
            WHERE coalesce(e.start_ns < f.first_failure_ns, true)
            UNION ALL
            SELECT e.service, e.name
            FROM silent_entries e
            ASOF JOIN (SELECT * FROM in_order WHERE following_end_ns IS DISTINCT FROM end_ns) result
                ON result.instance = e.instance AND result.end_ns <= e.start_ns
            WHERE NOT result.retryable
        ) USING (service, name)
    ),
    asked_waits AS MATERIALIZED (
        SELECT w.*, coalesce(q.start_ns < w.until_ns, false) AS was_asked
        FROM waits w ASOF LEFT JOIN unserved q ON q.instance = w.instance AND q.start_ns >= w.end_ns
    ),
    other_waits AS MATERIALIZED (  -- only a marker in a span can show that the circuit is open
        SELECT instance, end_ns, max(until_ns) OVER (PARTITION BY instance ORDER BY end_ns) AS until_ns
        FROM asked_waits WHERE NOT was_asked
    ),
    marked AS MATERIALIZED (
        SELECT m.instance, m.start_ns
        FROM spans s JOIN (  -- few spans, as reading attributes takes long
            SELECT t.span_key, t.start_ns, t.instance
            FROM (
                SELECT t.span_key, t.start_ns, t.instance
                FROM caller_spans t
                JOIN (
                    SELECT instance, min(end_ns) AS begin_ns, max(until_ns) AS until_ns
                    FROM other_waits GROUP BY instance
                ) w ON w.instance = t.instance AND t.start_ns >= w.begin_ns AND t.start_ns < w.until_ns
            ) t
            ASOF JOIN other_waits w ON w.instance = t.instance AND w.end_ns <= t.start_ns
            WHERE t.start_ns < w.until_ns
        ) m ON m.span_key = s.span_key
        WHERE {SQL.have_common_element(SPAN_MARKERS_SQL, "(SELECT circuit_markers FROM rules)")}
    ),
    checked AS MATERIALIZED (
        SELECT w.* REPLACE (w.was_asked OR coalesce(m.start_ns < w.until_ns, false) AS was_asked), {started} AS probes
        FROM asked_waits w
        ASOF LEFT JOIN marked m ON m.instance = w.instance AND m.start_ns >= w.end_ns
        {count_starts}
    ),
    judged_openings AS (
        SELECT *, {_compile_whole(holds)} AS is_whole,
            CASE WHEN {_compile_early(holds)} THEN {ATTEMPT_TOO_EARLY} WHEN probes > {probes} THEN {TOO_MANY_PROBES} END
                AS reason
        FROM checked WHERE is_opening
    ),
    open_times AS (  -- until the first result
        SELECT instance, end_ns,
            max(coalesce(first_end_ns, {_LAST_INSTANT})) OVER (PARTITION BY instance ORDER BY end_ns) AS until_ns
        FROM waits WHERE is_opening
    ),
    early_openings AS (  -- the caller was asked after fewer failures, and made no attempt
        SELECT w.*
        FROM checked w ASOF LEFT JOIN open_times o ON o.instance = w.instance AND o.end_ns < w.end_ns
        WHERE NOT w.is_opening AND w.was_asked AND coalesce(w.end_ns > o.until_ns, true)
    )
    SELECT
        trace_id, CASE WHEN reason IS NOT NULL THEN false WHEN is_whole AND was_asked THEN true END AS ok,
        next_ns - end_ns AS value, [span_key] AS witness, start_ns AS rank, [reason, probes] AS note
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
_FIRST_OPENINGS_SQL = "openings AS (SELECT attempt_key FROM full_failures)"
# After an opening, the first result closes the circuit or opens it again; a violation ends the walk from opening to
# opening. Each round doubles the length of the steps (`next_key`), so that few rounds reach all openings.
_WALKED_OPENINGS_SQL = """
    steps AS (
        SELECT f.attempt_key, CASE WHEN f.first_failed THEN result.attempt_key ELSE o.attempt_key END AS next_key
        FROM failures f
        LEFT JOIN failures result ON result.instance = f.instance AND result.ordinal = f.first_ordinal
        ASOF LEFT JOIN full_failures o ON o.instance = f.instance AND o.end_ns > f.first_end_ns
        WHERE f.next_ns >= f.end_ns + {holds}
    ),
    walk AS (
        SELECT f.attempt_key, s.next_key, 1 AS round,
            f.attempt_key IN (SELECT {first_opening} FROM full_failures GROUP BY instance) AS is_opening
        FROM failures f LEFT JOIN steps s ON s.attempt_key = f.attempt_key
        UNION ALL
        SELECT w.attempt_key, s.next_key, w.round + 1, w.is_opening
            OR w.attempt_key IN (SELECT r.next_key FROM walk r WHERE r.is_opening AND r.next_key IS NOT NULL)
        FROM walk w LEFT JOIN walk s ON s.attempt_key = w.next_key
        WHERE w.round < 40 AND EXISTS (FROM walk r WHERE r.is_opening AND r.next_key IS NOT NULL)
    ),
    openings AS (SELECT DISTINCT attempt_key FROM walk WHERE is_opening)"""


def _compile_whole(holds: str | None) -> str:
    """Return the SQL that tests whether the traces show an opening to its end."""
    if holds is None:
        return "was_asked"
    return f"coalesce(next_ns, (SELECT end_ns FROM traces_end)) >= end_ns + {holds}"


def _compile_early_hold(holds: str | None) -> str:
    """Return the condition under which no attempt after a failure shows an opening, not just a request without one."""
    if holds is None:
        return "AND next_or_own_ns IS NOT NULL"
    return f"AND coalesce(next_or_own_ns, (SELECT end_ns FROM traces_end)) >= end_ns + {holds}"


def _compile_early(holds: str | None) -> str:
    """Return the SQL that tests whether the caller went on calling while the circuit should have been open."""
    return "NOT was_asked AND next_ns IS NOT NULL" if holds is None else f"coalesce(next_ns < end_ns + {holds}, false)"
