"""Retries and fallbacks as SQL: one finding per logical call to which the claim applies."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import SQL_OPERATORS, ConditionCompiler, compile_limit, find_subject
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import SqlParameters, compile_joins, make_call_aliases, make_span_aliases
from spanproof.query_lang.sql.selections import (
    ATTEMPT_SPAN_SQL,
    SelectedRows,
    compile_span_match,
    is_stable,
    select_rows,
)
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

NOT_RETRIED = 0
# Where attempts are known only from a counter, the gaps between them and their causes are not known.
_ALL_SEEN_SQL: Final = "(all_seen OR NULL)"
FALLBACK_NOT_CALLED, FALLBACK_CALLED_TOO_EARLY, CALLER_FAILED, FALLBACK_FAILED = 1, 2, 3, 4

# Instrumentation of clients that retry below their span, so that only the callee sees it.
_SILENT_RETRIERS: Final = (
    "opentelemetry.instrumentation.requests",  # urllib3's Retry
    "opentelemetry.instrumentation.urllib3",
    "opentelemetry.instrumentation.grpc",  # gRPC's retry policy
    "@opentelemetry/instrumentation-grpc",
    "@opentelemetry/instrumentation-aws-sdk",
    "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
    "io.opentelemetry.grpc-1.6",
    "io.opentelemetry.apache-httpclient-4.0",
    "io.opentelemetry.apache-httpclient-4.3",
    "io.opentelemetry.apache-httpclient-5.0",
    "io.opentelemetry.apache-httpclient-5.2",
    "io.opentelemetry.java-http-client",
    "io.opentelemetry.http-url-connection",
)
# A call whose callee sent no span, of which no counter is recorded, and whose client retries below its span: it is
# known to, or it did so in another call. It may have more attempts than are known.
UNOBSERVED_RETRIES_SQL = (
    "({{call}}.tier NOT IN (1, 2) AND {{call}}.shape = 'unpaired' AND NOT {{call}}.async AND EXISTS ("
    "SELECT 1 FROM spans retrying LEFT JOIN scopes retrying_scope ON retrying_scope.scope_key = retrying.scope_key"
    " WHERE retrying.span_key = {{call}}.client_key AND (retrying_scope.name IN ({names}) OR EXISTS ("
    "SELECT 1 FROM attempts other JOIN spans other_span ON other_span.span_key = other.client_key"
    " WHERE other.arrived AND other.attempt IS NOT NULL AND other.caller = {{call}}.caller"
    " AND other_span.scope_key = retrying.scope_key))))"
).format(names=", ".join(map(SQL.quote, _SILENT_RETRIERS)))
# Whether only the caller's spans tell how often a call was tried, as the callee sent none, and no counter is recorded.
_IS_ONE_SIDED_SQL: Final = "CASE WHEN {call}.shape = 'unpaired' AND {call}.tier <> 1 THEN 1 ELSE 0 END"
_ONE_SIDED_SQL: Final = f"max({_IS_ONE_SIDED_SQL}) OVER ()"
# Whether a fallback `u` started after the last attempt of a call `a` was over. Some SDKs record starts in whole
# milliseconds, so that it may really have started up to one millisecond later.
_STARTED_AFTER_SQL: Final = "u.start_ns + 999999 >= a.over_ns"
UNDECIDED_REASON = "retries of this client are visible only at the callee, and here the callee sent no span"
EVIDENCE_TIERS: Final = {"evidence counted": 1, "evidence arrivals": 2, "evidence inferred": 3}


def compile_no_retry(claim: s.NoRetry, bindings: Bindings) -> Plan:
    """Compile ``no retry``: each logical call must have one attempt."""
    rows = _select_calls(claim.call, SqlParameters(reading=bindings.reading), bindings)
    sql = rows.build_select(
        "c.trace_id, CASE WHEN c.attempts > 1 THEN false"
        f" WHEN NOT {UNOBSERVED_RETRIES_SQL.format(call='c')} THEN true END AS ok,"
        f" c.attempts AS value, (SELECT {SQL.collect(ATTEMPT_SPAN_SQL.format(attempt='e.'), 'e.attempt')}"
        f" FROM {rows.parameters.table('attempts')} e"
        " WHERE e.call_key = c.call_key AND e.attempt IS NOT NULL) AS witness,"
        f" c.start_ns AS rank, [c.tier, {_ONE_SIDED_SQL.format(call='c')}] AS note"
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
    rows = _select_calls(claim.call, SqlParameters(reading=bindings.reading), bindings)
    # other calls gave no reason for a retry
    retry_calls = rows.build_select("c.*", "(c.attempts > 1 OR c.failed OR c.retryable)")
    row = make_call_aliases("e", attempts=True)
    conditions = ConditionCompiler(row, rows.parameters, bindings)
    cause_columns, tests, observed = [], ["attempts > 1"], [SQL.cast("attempts", "text")]
    for number, clause in enumerate(claim.clauses, 1):
        match clause:
            case s.Limit(name="attempts"):
                limit = compile_limit(clause.value, bindings, rows.parameters)
                test = f"coalesce(attempts {SQL_OPERATORS[clause.operator]} {limit}, false)"
                tests.append(f"CASE WHEN {_compile_certainty(clause.operator, test, limit)} THEN {test} END")
                observed.append(SQL.cast("attempts", "text"))
            case s.Limit():
                limit = compile_limit(clause.value, bindings, rows.parameters)
                test = f"coalesce(gap {SQL_OPERATORS[clause.operator]} {limit}, false)"
                violations = SQL.filter_list("attempt_gaps", "gap", f"NOT {test}")
                test = f"{SQL.length(violations)} = 0"
                # attempts that left no span make gaps shorter
                is_lower_bound = clause.operator in (">", ">=")
                tests.append(
                    f"({test} AND {_ALL_SEEN_SQL})" if is_lower_bound else f"CASE WHEN all_seen THEN {test} END"
                )
                observed.append(SQL.cast(f"{violations}[1]", "text"))
            case s.Flag(name="backoff grows"):
                tests.append("CASE WHEN all_seen THEN grows END")
                observed.append("NULL")
            case s.Flag() if clause.name in EVIDENCE_TIERS:
                tests.append(f"tier BETWEEN 1 AND {EVIDENCE_TIERS[clause.name]}")
                observed.append(SQL.cast("tier", "text"))
            case s.Flag():
                tests.append("exhausted" if clause.name == "exhausted" else "NOT (failed OR exhausted)")
                observed.append("NULL")
            case s.Cause():
                subject = find_subject(clause.condition)
                value_sql = f"CAST({conditions.compile_value(subject).sql} AS VARCHAR)" if subject else "NULL"
                cause_columns.append(
                    f"{conditions.compile_condition(clause.condition)} AS cause{number},"
                    f" {value_sql} AS cause_value{number}"
                )
                tests.append(f"(cause{number} AND {_ALL_SEEN_SQL})")
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
        f"WITH retry_calls AS MATERIALIZED ({retry_calls}), unobserved_calls AS ("
        f"SELECT a.call_key FROM retry_calls a WHERE {UNOBSERVED_RETRIES_SQL.format(call='a')}), attempt_gaps AS ("
        f"SELECT e.*, a.attempts AS attempts, {_IS_ONE_SIDED_SQL.format(call='a')} AS one_sided,"
        " a.call_key IN (FROM unobserved_calls) AS unobserved,"
        " lag(e.end_ns) OVER (PARTITION BY e.call_key ORDER BY e.attempt) AS last_end_ns,"
        " CASE WHEN e.start_ns - last_end_ns BETWEEN -999999 AND 0 THEN 0 ELSE e.start_ns - last_end_ns END AS gap_ns"
        + "".join(f", {column}" for column in cause_columns)
        + f" FROM retry_calls a JOIN {rows.parameters.table('attempts')} e ON e.call_key = a.call_key {' '.join(joins)}"
        " WHERE e.attempt IS NOT NULL), compared AS ("
        "SELECT *, lag(gap_ns) OVER (PARTITION BY call_key ORDER BY attempt) AS gap_before_ns FROM attempt_gaps),"
        " per_call AS ("
        f"SELECT {SQL.any_value('trace_id')} AS trace_id, {SQL.any_value('attempts')} AS attempts,"
        f" {SQL.any_value('tier')} AS tier,"
        # an attempt that is known only from a counter has failed
        f" coalesce({SQL.any_true('retryable')} FILTER (attempt = 1), true) AS exercised,"
        f" {SQL.last_by('failed', 'attempt')} AS failed, {SQL.last_by('retryable', 'attempt')} AS exhausted,"
        f" {SQL.any_value('one_sided')} AS one_sided, count(*) = {SQL.any_value('attempts')}"
        f" AND NOT {SQL.any_value('unobserved')} AS all_seen, {SQL.any_value('unobserved')} AS unobserved,"
        f" coalesce({SQL.collect('gap_ns', 'attempt')} FILTER (gap_ns IS NOT NULL), []) AS attempt_gaps,"
        f" coalesce({SQL.all_true('gap_ns > gap_before_ns')}, true) AS grows, min(start_ns) AS start_ns,"
        f" {SQL.collect(ATTEMPT_SPAN_SQL.format(attempt=''), 'attempt')} AS witness"
        f"{cause_aggregates} FROM compared GROUP BY call_key)"
        f" SELECT trace_id, CASE WHEN NOT unobserved OR attempts > 1 THEN {' AND '.join(tests)} END AS ok,"
        f" CASE {value} END AS value, witness, start_ns AS rank,"
        f" [CASE {first_wrong} END, attempts, tier, max(one_sided) OVER ()] AS note FROM per_call WHERE exercised"
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


def _compile_certainty(operator: str, test: str, limit: str) -> str:
    """Return the SQL of whether more attempts than are known would leave a test of their number as it is."""
    if operator in (">", ">="):
        return f"(NOT unobserved OR {test})"
    if operator in ("<", "<="):
        return f"(NOT unobserved OR NOT {test})"
    return f"(NOT unobserved OR attempts > {limit})"


def compile_fallback(claim: s.Fallback, bindings: Bindings) -> Plan:
    """Compile ``fallback``. ``value`` lists the services called instead. ``note`` is [reason why it does not hold]."""
    parameters = SqlParameters(reading=bindings.reading)
    rows = _select_calls(claim.call, parameters, bindings)
    failed_calls = rows.build_select("c.*", "c.retryable")
    if claim.to.spans == "any":
        row = make_span_aliases("s", "t")
        where = compile_span_match(claim.to, "t", ConditionCompiler(row, parameters, bindings))
        fallbacks = (
            "SELECT t.entry_key AS caller_entry, t.start_ns, t.span_key AS witness, false AS failed"
            f" FROM {parameters.table('topology')} t"
            f" {' '.join(compile_joins(row, rows.parameters))}"
            f" WHERE {' AND '.join(['t.trace_id IN (SELECT trace_id FROM failed_calls)', *where])}"
        )
    else:
        call = s.CallSelection(
            s.SpanSelection("entry", None, None, None, claim.to.at), "=>", claim.to, False, claim.to.at
        )
        fallbacks = select_rows(call, parameters, bindings).build_select(
            "c.caller_entry, c.start_ns, coalesce(c.client_key, c.server_key) AS witness, c.failed"
        )
    sql = (
        f"WITH failed_calls AS ({failed_calls}), fallbacks AS ({fallbacks}), checked_calls AS ("
        f"SELECT a.trace_id, a.call_key, {SQL.any_value('a.start_ns')} AS start_ns,"
        f" {SQL.any_value('coalesce(a.client_key, a.server_key)')} AS failed_key,"
        f" {SQL.first_by('u.witness', '(u.failed, u.start_ns)')} FILTER ({_STARTED_AFTER_SQL}) AS fallback_key,"
        f" coalesce({SQL.all_true('u.failed')} FILTER ({_STARTED_AFTER_SQL}), false) AS fallback_failed,"
        f" count(u.start_ns) > 0 AS has_fallback, {SQL.any_value('entry.error')} AS entry_error"
        " FROM failed_calls a LEFT JOIN fallbacks u ON u.caller_entry = a.caller_entry"
        f" LEFT JOIN {parameters.table('topology')} entry ON entry.span_key = a.caller_entry GROUP BY ALL), others AS ("
        f"SELECT a.call_key, {SQL.join_texts('o.callee', ', ', 'o.callee', distinct=True)} AS callees"
        " FROM failed_calls a"
        f" JOIN {parameters.table('calls')} o"
        " ON o.caller_entry = a.caller_entry AND o.start_ns >= a.over_ns GROUP BY a.call_key)"
        " SELECT j.trace_id,"
        " j.fallback_key IS NOT NULL AND NOT j.fallback_failed AND NOT coalesce(j.entry_error, false) AS ok,"
        " o.callees AS value,"
        f" {SQL.filter_list('[j.failed_key, j.fallback_key]', 'key', 'key IS NOT NULL')} AS witness,"
        " j.start_ns AS rank,"
        f" [CASE WHEN j.fallback_key IS NULL AND j.has_fallback THEN {FALLBACK_CALLED_TOO_EARLY}"
        f" WHEN j.fallback_key IS NULL THEN {FALLBACK_NOT_CALLED} WHEN j.fallback_failed THEN {FALLBACK_FAILED}"
        f" WHEN j.entry_error THEN {CALLER_FAILED} END] AS note"
        " FROM checked_calls j"
        " LEFT JOIN others o ON o.call_key = j.call_key"
    )
    return Plan(sql, parameters.values, "all", ValueType("text"), is_stable=False, needs_occasion=True)


def _select_calls(node: s.Selection, parameters: SqlParameters, bindings: Bindings) -> SelectedRows:
    assert isinstance(node, s.CallSelection)  # noqa: S101 (checked before)
    return select_rows(node, parameters, bindings)


def compile_unobserved(claim: s.Claim, bindings: Bindings) -> tuple[str, dict[str, object]] | None:
    """Return the query for calls of a claim about attempts whose retries only the callee would show.

    None if the claim is not about attempts.
    """
    calls = [part for part in s.walk(claim) if isinstance(part, s.CallSelection)]
    reads_attempts = isinstance(claim, s.Timeout) or any(call.attempts for call in calls)
    reads_attempts = reads_attempts or any(
        (isinstance(part, s.Function) and part.name == "attempts")
        or (isinstance(part, s.Name) and part.text in ("attempt", "attempts"))
        for part in s.walk(claim)
    )  # fmt: skip
    if isinstance(claim, s.Retry | s.NoRetry) or not calls or not reads_attempts:
        return None
    parameters = SqlParameters(reading=bindings.reading)
    selects = [
        select_rows(replace(call, attempts=False, callee=replace(call.callee, where=None)), parameters, bindings)
        .build_select("1", UNOBSERVED_RETRIES_SQL.format(call="c"))
        for call in calls
    ]  # fmt: skip
    return " UNION ALL ".join(selects), parameters.values
