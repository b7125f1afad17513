"""``before`` as SQL: one finding for each trace in which both sides occur."""

from __future__ import annotations

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.conditions import SqlParameters
from spanproof.query_lang.compile.plan import Plan
from spanproof.query_lang.compile.selections import is_stable, select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType


def compile_before(claim: s.Before, bindings: Bindings) -> Plan:
    """Compile ``first before second``; ``value`` is by how much the second starts after the first has ended.

    Clocks of two processes are compared only beyond the skew that the rules allow. Nearer than that, the order is known
    where one descends from the other, or where ancestors of the two in one process, which waited for them, are ordered,
    all that are in the same way; else ``ok`` is NULL.
    """
    parameters = SqlParameters()
    first = select_rows(claim.first, parameters, bindings)
    second = select_rows(claim.second, parameters, bindings)
    columns = "{0} AS trace_id, {1}[1] AS span_key, {2} AS start_ns, {3} AS end_ns"
    first_rows = first.build_select(
        columns.format(first.trace_id_sql, first.witness_sql, first.start_sql, first.end_sql)
    )
    second_rows = second.build_select(
        columns.format(second.trace_id_sql, second.witness_sql, second.start_sql, second.end_sql)
    )
    sql = f"""
    WITH RECURSIVE
    firsts AS ({first_rows}),
    seconds AS ({second_rows}),
    ends AS (
        SELECT trace_id, max(end_ns) AS end_ns, arg_max(span_key, (end_ns, span_key)) AS span_key
        FROM firsts GROUP BY ALL
    ),
    starts AS (
        SELECT trace_id, min(start_ns) AS start_ns, arg_min(span_key, (start_ns, span_key)) AS span_key
        FROM seconds GROUP BY ALL
    ),
    pairs AS (
        SELECT
            e.trace_id, e.span_key AS one, o.span_key AS two, o.start_ns - e.end_ns AS gap_ns, o.start_ns,
            a.resource_key = b.resource_key AS together
        FROM ends e JOIN starts o ON o.trace_id = e.trace_id
        JOIN spans a ON a.span_key = e.span_key
        JOIN spans b ON b.span_key = o.span_key
    ),
    near AS (SELECT * FROM pairs WHERE NOT together AND abs(gap_ns) <= (SELECT max_clock_skew_ns FROM rules)),
    sides AS (SELECT trace_id, 1 AS side, one AS span_key FROM near UNION ALL SELECT trace_id, 2, two FROM near),
    above AS (
        SELECT trace_id, side, span_key, true AS waited_for FROM sides
        UNION ALL
        SELECT
            u.trace_id, u.side, p.span_key,
            u.waited_for AND t.kind <> 5 AND (t.end_ns <= p.end_ns OR t.resource_key <> p.resource_key)
        FROM above u
        JOIN topology t ON t.span_key = u.span_key
        JOIN topology p ON p.span_key = t.parent_key
    ),
    related AS (  -- one of the two descends from the other
        SELECT DISTINCT n.trace_id FROM near n
        JOIN above u ON u.trace_id = n.trace_id
            AND (u.side = 1 AND u.span_key = n.two OR u.side = 2 AND u.span_key = n.one)
    ),
    ordered AS (
        SELECT x.trace_id, bool_or(a.end_ns <= b.start_ns) AS forward, bool_or(b.end_ns <= a.start_ns) AS backward
        FROM above x
        JOIN above y ON y.trace_id = x.trace_id AND x.side = 1 AND y.side = 2 AND x.waited_for AND y.waited_for
        JOIN spans a ON a.span_key = x.span_key
        JOIN spans b ON b.span_key = y.span_key AND b.resource_key = a.resource_key
        GROUP BY x.trace_id
    )
    SELECT
        p.trace_id,
        CASE
            WHEN n.trace_id IS NULL OR r.trace_id IS NOT NULL THEN p.gap_ns >= 0
            WHEN o.forward <> o.backward THEN o.forward
        END AS ok,
        p.gap_ns AS value, [p.one, p.two] AS witness, p.start_ns AS rank, NULL::BIGINT[] AS note
    FROM pairs p
    LEFT JOIN near n ON n.trace_id = p.trace_id
    LEFT JOIN related r ON r.trace_id = p.trace_id
    LEFT JOIN ordered o ON o.trace_id = p.trace_id
    """
    stable = is_stable(claim.first) and is_stable(claim.second)
    untold = "the two are nearer than the clocks of two processes can tell"
    return Plan(sql, parameters.values, "all", ValueType("duration"), stable, undecided_reason=untold)
