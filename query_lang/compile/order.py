"""``before`` as SQL: one finding per trace in which both sides occur."""

from __future__ import annotations

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import compile_limit
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.query_lang.sql.selections import is_stable, select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType


def compile_before(claim: s.Before, bindings: Bindings) -> Plan:
    """Compile ``first before second within limit``.

    ``value`` is the gap: the time from the end of the first to the start of the second.
    Times of two processes are compared only if they differ by more than the clock skew that the rules allow. Otherwise
    the order is known in two cases: one span descends from the other, or both have ancestors in a common process that
    waited for them, and all these ancestors are ordered in the same way. In all other cases ``ok`` is NULL.
    ``note`` is [1] where the gap is longer than the limit: a span that arrives later may shorten it.
    """
    parameters = SqlParameters(reading=bindings.reading)
    first = select_rows(claim.first, parameters, bindings)
    second = select_rows(claim.second, parameters, bindings)
    columns = "{0} AS trace_id, {1}[1] AS span_key, {2} AS start_ns, {3} AS end_ns"
    first_rows = first.build_select(
        columns.format(first.trace_id_sql, first.witness_sql, first.start_sql, first.end_sql)
    )
    second_rows = second.build_select(
        columns.format(second.trace_id_sql, second.witness_sql, second.start_sql, second.end_sql)
    )
    topology = parameters.table("topology")
    limit = "NULL::BIGINT" if claim.limit is None else compile_limit(claim.limit, bindings, parameters)
    # where the first selection has a span without an end, the gap may be shorter
    or_open = (
        " OR NULLIF(EXISTS (FROM firsts f JOIN topology s ON s.span_key = f.span_key"
        " WHERE f.trace_id = p.trace_id AND s.end_ns IS NULL), true)"
        if bindings.reading.has_unfinished
        else ""
    )
    ok = "is_ordered" if claim.limit is None else "is_ordered AND is_within"
    sql = f"""
    WITH RECURSIVE
    firsts AS ({first_rows}),
    seconds AS ({second_rows}),
    ends AS (
        SELECT trace_id, max(end_ns) AS end_ns, {SQL.last_by("span_key", "(end_ns, span_key)")} AS span_key
        FROM firsts GROUP BY ALL
    ),
    starts AS (
        SELECT trace_id, min(start_ns) AS start_ns, {SQL.first_by("span_key", "(start_ns, span_key)")} AS span_key
        FROM seconds GROUP BY ALL
    ),
    pairs AS (
        SELECT
            e.trace_id, e.span_key AS first_key, o.span_key AS second_key, o.start_ns - e.end_ns AS gap_ns, o.start_ns,
            a.resource_key = b.resource_key AS same_process
        FROM ends e JOIN starts o ON o.trace_id = e.trace_id
        JOIN {topology} a ON a.span_key = e.span_key
        JOIN {topology} b ON b.span_key = o.span_key
    ),
    near AS (SELECT * FROM pairs WHERE NOT same_process AND abs(gap_ns) <= (SELECT max_clock_skew_ns FROM rules)),
    sides AS (
        SELECT trace_id, 1 AS side, first_key AS span_key FROM near
        UNION ALL
        SELECT trace_id, 2, second_key FROM near
    ),
    ancestors AS (
        SELECT trace_id, side, span_key, true AS waited_for FROM sides
        UNION ALL
        SELECT
            u.trace_id, u.side, p.span_key,
            u.waited_for AND t.role <> 5 AND (t.end_ns <= p.end_ns OR t.resource_key <> p.resource_key)
        FROM ancestors u
        JOIN {topology} t ON t.span_key = u.span_key
        JOIN {topology} p ON p.span_key = t.parent_key
    ),
    related AS (  -- one of the two descends from the other
        SELECT DISTINCT n.trace_id FROM near n
        JOIN ancestors u ON u.trace_id = n.trace_id
            AND (u.side = 1 AND u.span_key = n.second_key OR u.side = 2 AND u.span_key = n.first_key)
    ),
    ordered AS (
        SELECT x.trace_id, {SQL.any_true("a.end_ns <= b.start_ns")} AS forward,
            {SQL.any_true("b.end_ns <= a.start_ns")} AS backward
        FROM ancestors x
        JOIN ancestors y ON y.trace_id = x.trace_id AND x.side = 1 AND y.side = 2 AND x.waited_for AND y.waited_for
        JOIN {topology} a ON a.span_key = x.span_key
        JOIN {topology} b ON b.span_key = y.span_key AND b.resource_key = a.resource_key
        GROUP BY x.trace_id
    ),
    judged AS (
        SELECT
            p.*,
            CASE
                WHEN n.trace_id IS NULL OR r.trace_id IS NOT NULL THEN p.gap_ns >= 0
                WHEN o.forward <> o.backward THEN o.forward
            END AS is_ordered,
            CASE
                WHEN p.same_process OR abs(p.gap_ns - {limit}) > (SELECT max_clock_skew_ns FROM rules)
                THEN p.gap_ns <= {limit}{or_open}
            END AS is_within
        FROM pairs p
        LEFT JOIN near n ON n.trace_id = p.trace_id
        LEFT JOIN related r ON r.trace_id = p.trace_id
        LEFT JOIN ordered o ON o.trace_id = p.trace_id
    )
    SELECT
        trace_id, {ok} AS ok, gap_ns AS value, [first_key, second_key] AS witness, start_ns AS rank,
        [CASE WHEN coalesce(is_ordered, true) AND NOT is_within THEN 1 ELSE 0 END] AS note
    FROM judged
    """
    return Plan(
        sql,
        parameters.values,
        "all",
        ValueType("duration"),
        is_stable=False,
        stable_condition_sql="f.note[1] = 0" if is_stable(claim.first) and is_stable(claim.second) else "",
        undecided_reason="the two are closer in time, or their distance is closer to the limit, than the clocks of two"
        " processes can resolve"
        if claim.limit is not None
        else "the two are closer in time than the clocks of two processes can resolve",
    )
