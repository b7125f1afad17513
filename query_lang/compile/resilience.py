"""Retries, fallbacks and timeouts as SQL: one finding per logical call (or attempt) to which the claim applies."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.conditions import (
    SQL_OPERATORS,
    ConditionCompiler,
    SqlParameters,
    compile_limit,
    find_subject,
)
from spanproof.query_lang.compile.duckdb_dialect import SQL
from spanproof.query_lang.compile.plan import Plan
from spanproof.query_lang.compile.selections import (
    SelectedRows,
    compile_joins,
    compile_span_match,
    is_stable,
    make_call_aliases,
    make_span_aliases,
    select_rows,
)
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

NOT_RETRIED = 0
FALLBACK_NOT_CALLED, FALLBACK_CALLED_TOO_EARLY, CALLER_FAILED = 1, 2, 3

# A call with one known attempt whose callee sent no span, although other retries by this caller were visible only at
# the callee.
# The span that shows an attempt; `{attempt}` is empty, or the alias of the attempt and a dot.
_ATTEMPT_SPAN_SQL: Final = (
    "CASE WHEN {attempt}arrived THEN {attempt}server_key ELSE coalesce({attempt}client_key, {attempt}server_key) END"
)
_TIMEOUT_PATTERN: Final = "(?i)time.?out|timed.?out|deadline|cancel"
UNOBSERVED_RETRIES_SQL = (
    "({call}.attempts = 1 AND {call}.shape = 'unpaired' AND EXISTS (SELECT 1 FROM calls other WHERE other.tier = 2"
    " AND other.caller = {call}.caller AND other.callee = {call}.callee))"
)
UNDECIDED_REASON = "retries of this call were visible only at the callee, and here the callee sent no span"


def compile_no_retry(claim: s.NoRetry, bindings: Bindings) -> Plan:
    """Compile ``no retry``: each logical call must have one attempt."""
    rows = _select_calls(claim.call, SqlParameters(), bindings)
    sql = rows.build_select(
        f"c.trace_id, CASE WHEN NOT {UNOBSERVED_RETRIES_SQL.format(call='c')} THEN c.attempts = 1 END AS ok,"
        f" c.attempts AS value, (SELECT {SQL.collect(_ATTEMPT_SPAN_SQL.format(attempt='e.'), 'e.attempt')}"
        " FROM attempts e WHERE e.call_key = c.call_key AND e.attempt IS NOT NULL) AS witness,"
        " c.start_ns AS rank, [c.tier] AS note"
    )
    return Plan(
        sql,
        rows.parameters.values,
        "all",
        ValueType("number"),
        is_stable(claim.call),
        undecided_reason=UNDECIDED_REASON,
    )


def compile_retry(claim: s.Retry, bindings: Bindings) -> Plan:
    """Compile ``retry``. ``note`` is [number of the clause that does not hold, attempts, tier]."""
    rows = _select_calls(claim.call, SqlParameters(), bindings)
    retry_calls = rows.build_select("c.*", "(c.attempts > 1 OR c.failed)")  # other calls gave no reason for a retry
    row = make_call_aliases("e", attempts=True)
    conditions = ConditionCompiler(row, rows.parameters, bindings)
    cause_columns, tests, observed = [], ["attempts > 1"], [SQL.cast("attempts", "text")]
    for number, clause in enumerate(claim.clauses, 1):
        match clause:
            case s.Limit(name="attempts"):
                limit = compile_limit(clause.value, bindings, rows.parameters)
                tests.append(f"coalesce(attempts {SQL_OPERATORS[clause.operator]} {limit}, false)")
                observed.append(SQL.cast("attempts", "text"))
            case s.Limit():
                limit = compile_limit(clause.value, bindings, rows.parameters)
                test = f"coalesce(gap {SQL_OPERATORS[clause.operator]} {limit}, false)"
                violations = SQL.filter_list("attempt_gaps", "gap", f"NOT {test}")
                tests.append(f"{SQL.length(violations)} = 0")
                observed.append(SQL.cast(f"{violations}[1]", "text"))
            case s.Flag(name="backoff grows"):
                tests.append("grows")
                observed.append("NULL")
            case s.Flag():
                tests.append("error" if clause.name == "exhausted" else "NOT error")
                observed.append("NULL")
            case s.Cause():
                subject = find_subject(clause.condition)
                value_sql = f"CAST({conditions.compile_value(subject).sql} AS VARCHAR)" if subject else "NULL"
                cause_columns.append(
                    f"{conditions.compile_condition(clause.condition)} AS cause{number},"
                    f" {value_sql} AS cause_value{number}"
                )
                tests.append(f"cause{number}")
                observed.append(f"cause_value{number}")
    cause_aggregates = "".join(
        f", {SQL.all_true(f'cause{number}')} FILTER (retryable) AS cause{number},"
        f" {SQL.any_value(f'cause_value{number}')} FILTER (retryable AND NOT cause{number}) AS cause_value{number}"
        for number, clause in enumerate(claim.clauses, 1)
        if isinstance(clause, s.Cause)
    )
    first_wrong = " ".join(f"WHEN NOT ({test}) THEN {number}" for number, test in enumerate(tests))
    value = " ".join(
        f"WHEN NOT ({test}) THEN {observed_sql}" for test, observed_sql in zip(tests, observed, strict=True)
    )
    joins = compile_joins(row, rows.parameters)
    sql = (
        f"WITH retry_calls AS ({retry_calls}), attempt_gaps AS ("
        f"SELECT e.*, a.failed AS finally_failed, {UNOBSERVED_RETRIES_SQL.format(call='a')} AS unobserved,"
        " e.start_ns - lag(e.end_ns) OVER (PARTITION BY e.call_key ORDER BY e.attempt) AS gap_ns"
        + "".join(f", {column}" for column in cause_columns)
        + f" FROM retry_calls a JOIN attempts e ON e.call_key = a.call_key {' '.join(joins)}"
        " WHERE e.attempt IS NOT NULL), compared AS ("
        "SELECT *, lag(gap_ns) OVER (PARTITION BY call_key ORDER BY attempt) AS gap_before_ns FROM attempt_gaps),"
        " per_call AS ("
        f"SELECT {SQL.any_value('trace_id')} AS trace_id, count(*) AS attempts, {SQL.any_value('tier')} AS tier,"
        f" {SQL.any_true('retryable')} FILTER (attempt = 1) AS exercised,"
        f" {SQL.any_value('finally_failed')} AS error, {SQL.any_value('unobserved')} AS unobserved,"
        f" coalesce({SQL.collect('gap_ns', 'attempt')} FILTER (gap_ns IS NOT NULL), []) AS attempt_gaps,"
        f" coalesce({SQL.all_true('gap_ns > gap_before_ns')}, true) AS grows, min(start_ns) AS start_ns,"
        f" {SQL.collect(_ATTEMPT_SPAN_SQL.format(attempt=''), 'attempt')} AS witness"
        f"{cause_aggregates} FROM compared GROUP BY call_key)"
        f" SELECT trace_id, CASE WHEN NOT unobserved THEN {' AND '.join(tests)} END AS ok,"
        f" CASE {value} END AS value, witness, start_ns AS rank,"
        f" [CASE {first_wrong} END, attempts, tier] AS note FROM per_call WHERE exercised"
    )
    return Plan(
        sql,
        rows.parameters.values,
        "all",
        ValueType("text"),
        is_stable=False,
        needs_occasion=True,
        undecided_reason=UNDECIDED_REASON,
    )


def compile_fallback(claim: s.Fallback, bindings: Bindings) -> Plan:
    """Compile ``fallback``. ``value`` lists the services called instead. ``note`` is [reason why it does not hold]."""
    parameters = SqlParameters()
    rows = _select_calls(claim.call, parameters, bindings)
    failed_calls = rows.build_select("c.*", "c.failed")
    if claim.to.spans == "any":
        row = make_span_aliases("s", "t")
        where = compile_span_match(claim.to, "t", ConditionCompiler(row, parameters, bindings))
        fallbacks = (
            "SELECT t.entry_key AS caller_entry, t.start_ns, t.span_key AS witness FROM topology t"
            f" {' '.join(compile_joins(row, rows.parameters))}"
            f" WHERE {' AND '.join(['t.trace_id IN (SELECT trace_id FROM failed_calls)', *where])}"
        )
    else:
        call = s.CallSelection(
            s.SpanSelection("entry", None, None, None, claim.to.at), "=>", claim.to, False, claim.to.at
        )
        fallbacks = select_rows(call, parameters, bindings).build_select(
            "c.caller_entry, c.start_ns, coalesce(c.client_key, c.server_key) AS witness"
        )
    sql = (
        f"WITH failed_calls AS ({failed_calls}), fallbacks AS ({fallbacks}), checked_calls AS ("
        f"SELECT a.trace_id, a.call_key, {SQL.any_value('a.start_ns')} AS start_ns,"
        f" {SQL.any_value('coalesce(a.client_key, a.server_key)')} AS failed_key,"
        f" {SQL.first_by('u.witness', 'u.start_ns')} FILTER (u.start_ns >= a.end_ns) AS fallback_key,"
        f" count(u.start_ns) > 0 AS has_fallback, {SQL.any_value('entry.error')} AS entry_error"
        " FROM failed_calls a LEFT JOIN fallbacks u ON u.caller_entry = a.caller_entry"
        " LEFT JOIN topology entry ON entry.span_key = a.caller_entry GROUP BY ALL), others AS ("
        f"SELECT a.call_key, {SQL.join_texts('o.callee', ', ', 'o.callee', distinct=True)} AS callees"
        " FROM failed_calls a"
        " JOIN calls o ON o.caller_entry = a.caller_entry AND o.start_ns >= a.end_ns GROUP BY a.call_key)"
        " SELECT j.trace_id, j.fallback_key IS NOT NULL AND NOT coalesce(j.entry_error, false) AS ok,"
        " o.callees AS value,"
        f" {SQL.filter_list('[j.failed_key, j.fallback_key]', 'key', 'key IS NOT NULL')} AS witness,"
        " j.start_ns AS rank,"
        f" [CASE WHEN j.fallback_key IS NULL AND j.has_fallback THEN {FALLBACK_CALLED_TOO_EARLY}"
        f" WHEN j.fallback_key IS NULL THEN {FALLBACK_NOT_CALLED} WHEN j.entry_error THEN {CALLER_FAILED} END] AS note"
        " FROM checked_calls j"
        " LEFT JOIN others o ON o.call_key = j.call_key"
    )
    return Plan(sql, parameters.values, "all", ValueType("text"), is_stable=False, needs_occasion=True)


def compile_timeout(claim: s.Timeout, bindings: Bindings) -> Plan:
    """Compile ``timeout``: one finding per attempt that was cut off, or that lasted longer than the limit.

    An attempt was cut off if its error names a timeout, a deadline or a cancellation, or if it failed and the callee
    continued after the caller had given up.
    """
    assert isinstance(claim.call, s.CallSelection)  # noqa: S101 (checked before)
    rows = select_rows(replace(claim.call, attempts=True), SqlParameters(), bindings)
    rows.aliases.needed_joins.update(rows.aliases.span_aliases)
    limit = compile_limit(claim.limit, bindings, rows.parameters)
    error_type = SQL.attribute("client.attributes", "error.type")
    exception_types = SQL.map_list("client.events", "event", SQL.attribute("event.attributes", "exception.type"))
    error_text = f"concat_ws(' ', {error_type}, client.status_message, {SQL.join_list(exception_types, ' ')})"
    cut_off = (
        f"({SQL.matches(error_text, SQL.quote(_TIMEOUT_PATTERN))}"
        f" OR coalesce({SQL.attribute('client.attributes', 'rpc.response.status_code')} IN ('1', '4', 'CANCELLED',"
        " 'DEADLINE_EXCEEDED'), false)"
        " OR c.error AND coalesce(server.end_ns - server.start_ns > client.end_ns - client.start_ns, false))"
    )
    duration = "coalesce(client.end_ns - client.start_ns, c.duration_ns)"
    sql = rows.build_select(
        f"c.trace_id, {duration} <= {limit} AS ok, {duration} AS value, {rows.witness_sql} AS witness,"
        f" -{duration} AS rank, {SQL.null('integers')} AS note",
        f"({duration} > {limit} OR {cut_off})",
    )
    return Plan(sql, rows.parameters.values, "all", ValueType("duration"), is_stable=True, needs_occasion=True)


def _select_calls(node: s.Selection, parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    assert isinstance(node, s.CallSelection)  # noqa: S101 (checked before)
    return select_rows(node, parameters, bindings)
