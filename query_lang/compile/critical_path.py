"""Critical path as SQL: the service in which each part of a trace's time was spent.

The path is walked backward from the end of the root, at each span to the awaited child that ended last. The time
between children is the parent's own. So the shares add up to the duration of the root. The time of a call without a
server span belongs to the peer.
"""

from __future__ import annotations

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import SqlValue, compile_limit, compile_service_match
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import RowAliases, SqlParameters
from spanproof.query_lang.sql.selections import SelectedRows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import AGGREGATES, ValueType

# `walk` has, for each awaited span, the time that is not yet assigned: from `start_ns` to `rest_end_ns`, within the
# time up to `until_ns`. `awaited` has the children that a span can wait for: a child ends within that time, or
# `answers` a client span, to which it is clipped. Consumers are not awaited.
# Ends and overlaps within the clock skew are errors of the clocks.
_END_SQL = "CASE WHEN w.answers THEN least(w.end_ns, b.until_ns) ELSE w.end_ns END"
_WAIT_END_SQL = f"least({_END_SQL}, b.rest_end_ns)"
_WAIT_START_SQL = "greatest(w.start_ns, b.start_ns)"
_WAIT_JOIN_SQL = (
    f"awaited w ON w.parent_key = b.span_key AND {_WAIT_START_SQL} < {_WAIT_END_SQL}"
    f" AND {_END_SQL} <= b.rest_end_ns + w.skew_ns"
)
CRITICAL_PATH_SQL = f"""
timed AS (
    SELECT
        t.trace_id, t.span_key, t.parent_key, t.role, t.start_ns, greatest(t.start_ns, t.end_ns) AS end_ns,
        coalesce(e.callee, t.service) AS service, t.is_entry, t.depth = 0 AND NOT t.orphan AS root
    FROM {{traces}} sel
    JOIN {{topology}} t ON t.trace_id = sel.trace_id
    LEFT JOIN {{attempts}} e ON e.client_key = t.span_key AND e.shape = 'unpaired'
),
awaited AS (
    SELECT c.parent_key, c.span_key, c.start_ns, c.end_ns, c.is_entry AND p.role = 3 AS answers,
        (SELECT max_clock_skew_ns FROM rules) AS skew_ns
    FROM timed c JOIN timed p ON p.span_key = c.parent_key
    WHERE c.role <> 5 AND c.end_ns > c.start_ns
),
walk AS (
    SELECT trace_id, span_key, service, start_ns, end_ns AS until_ns, end_ns AS rest_end_ns FROM timed WHERE root
    UNION ALL
    SELECT b.trace_id, n.span_key, t.service, n.start_ns, n.until_ns, n.rest_end_ns
    FROM (
        SELECT b.*, w.span_key AS child, {_WAIT_START_SQL} AS child_start_ns, {_WAIT_END_SQL} AS child_end_ns
        FROM walk b JOIN {_WAIT_JOIN_SQL}
        QUALIFY row_number() OVER (
            PARTITION BY b.span_key, b.rest_end_ns
            ORDER BY child_end_ns DESC, {_END_SQL} DESC, child_start_ns DESC, w.span_key
        ) = 1
    ) b,
    LATERAL (
        SELECT
            b.child AS span_key, b.child_start_ns AS start_ns, b.child_end_ns AS until_ns, b.child_end_ns AS rest_end_ns
        UNION ALL
        SELECT b.span_key, b.start_ns, b.until_ns, b.child_start_ns
    ) n
    JOIN timed t ON t.span_key = n.span_key
),
path_shares AS (
    SELECT b.trace_id, b.service, b.span_key,
        b.rest_end_ns - coalesce(max({_WAIT_END_SQL}) FILTER (w.span_key IS NOT NULL), b.start_ns) AS share_ns
    FROM walk b LEFT JOIN {_WAIT_JOIN_SQL}
    GROUP BY b.trace_id, b.service, b.span_key, b.start_ns, b.rest_end_ns
),
critical AS (
    SELECT
        p.trace_id, p.service, {SQL.cast("coalesce(sum(h.share_ns), 0)", "integer")} AS value,
        {SQL.collect("h.span_key", distinct=True)} FILTER (h.share_ns > 0) AS witness, min(p.start_ns) AS start_ns
    FROM (
        SELECT trace_id, service, min(start_ns) AS start_ns FROM timed
        WHERE trace_id IN (SELECT trace_id FROM timed WHERE root) GROUP BY ALL
    ) p
    LEFT JOIN path_shares h ON h.trace_id = p.trace_id AND h.service = p.service
    GROUP BY p.trace_id, p.service
)"""


def _compile_critical_path(parameters: SqlParameters) -> str:
    return CRITICAL_PATH_SQL.format(
        traces=parameters.traces, topology=parameters.table("topology"), attempts=parameters.table("attempts")
    )


def select_critical_path_time(service: s.Name | s.Text, parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    """Return the rows of ``critical(service)``: one per trace in which the service occurs."""
    shares = f"(WITH RECURSIVE {_compile_critical_path(parameters)} FROM critical) share"
    return SelectedRows(
        aliases=RowAliases("span", (), "share"),
        tables=[shares],
        where=[compile_service_match("share.service", service, parameters, bindings)],
        trace_id_sql="share.trace_id",
        witness_sql="share.witness",
        start_sql="share.start_ns",
        end_sql="share.start_ns",
        parameters=parameters,
        bindings=bindings,
        values_by_function={"critical": SqlValue("share.value", "duration")},
    )


def compile_shares(bindings: Bindings, traces: str) -> str:
    """Return the query for the shares of all critical paths: ``trace_id``, ``service``, ``value`` in nanoseconds."""
    parameters = SqlParameters(traces=traces, reading=bindings.reading)
    return f"WITH RECURSIVE {_compile_critical_path(parameters)} SELECT trace_id, service, value FROM critical"


def reads_single_shares(claim: s.Claim) -> bool:
    """Return whether a claim is about the share of a service in each trace, not about an aggregate of them."""
    if any(isinstance(part, s.Budget) for part in s.walk(claim)):
        return True
    aggregated = {
        id(part)
        for function in s.walk(claim)
        if isinstance(function, s.Function) and function.name in AGGREGATES
        for part in s.walk(function)
    }
    return any(
        isinstance(part, s.Function) and part.name == "critical" and id(part) not in aggregated
        for part in s.walk(claim)
    )


def compile_overrun(claim: s.Budget, bindings: Bindings) -> tuple[str, dict[str, object]]:
    """Return the query that tests whether the root of a trace lasted longer than the whole budget."""
    parameters = SqlParameters(reading=bindings.reading)
    limit = compile_limit(claim.total, bindings, parameters)
    sql = (
        f"SELECT EXISTS (FROM {parameters.traces} sel JOIN topology t ON t.trace_id = sel.trace_id"
        f" WHERE t.depth = 0 AND NOT t.orphan AND t.end_ns - t.start_ns > {limit})"
    )
    return sql, parameters.values


def compile_budget(claim: s.Budget, bindings: Bindings) -> Plan:
    """Compile ``budget``: one finding per trace and part. ``note`` is [number of the part, 0 for the total]."""
    parameters = SqlParameters(reading=bindings.reading)
    total = compile_limit(claim.total, bindings, parameters)
    selects = [
        f"SELECT trace_id, end_ns - start_ns <= {total} AS ok, end_ns - start_ns AS value, [span_key] AS witness,"
        f" 0 AS rank, [0] AS note FROM timed WHERE root"
    ]
    for number, (part, part_limit) in enumerate(claim.parts, 1):
        limit = compile_limit(part_limit, bindings, parameters)
        if part is None:
            named = [part for part, _ in claim.parts if part is not None]
            matches = [f"NOT {compile_service_match('service', each, parameters, bindings)}" for each in named]
            service_test = " AND ".join(matches) or "true"
        else:
            service_test = compile_service_match("service", part, parameters, bindings)
        selects.append(
            f"SELECT trace_id, value <= {limit}, value, witness, {limit} - value, [{number}]"
            f" FROM critical WHERE {service_test}"
        )
    sql = f"WITH RECURSIVE {_compile_critical_path(parameters)} {' UNION ALL '.join(selects)}"
    return Plan(
        sql, parameters.values, "all", ValueType("duration"), is_stable=False, stable_condition_sql="f.note[1] = 0"
    )
