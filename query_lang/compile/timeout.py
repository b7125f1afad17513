"""``timeout`` as SQL: one finding per attempt that was cut off, or that lasted longer than the limit."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.sql.conditions import compile_limit
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.query_lang.sql.selections import select_rows
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

# Kinds of error that mean a timeout, as client libraries name and describe them: `ReadTimeout`, `TimeoutError`,
# `SocketTimeoutException`, `ETIMEDOUT`, `UND_ERR_HEADERS_TIMEOUT`, "context deadline exceeded", "timed out".
_TIMEOUT_KINDS: Final = r"(?i)time[ _-]?out|timed[ _-]?out|deadline[ _-]?exceeded"
# Kinds of error that mean that the caller gave up, for whatever reason: `AbortError`, `context.Canceled`,
# `TaskCanceledException`, `ERR_CANCELED`; but not `ConnectionAbortedError`, which is a lost connection.
_ABORT_KINDS: Final = r"(?i)(^|[^a-z])abort(ed)?(error|exception|$|[^a-z])|cancell?ed|cancell?ation"
_CONTEXT_CANCELED: Final = "context canceled"  # Go's error has no type of its own in spans
_DEADLINE_EXCEEDED: Final = "('4', 'DEADLINE_EXCEEDED', 'deadline_exceeded')"
_CANCELLED: Final = "('1', 'CANCELLED', 'CANCELED', 'canceled')"


def compile_timeout(claim: s.Timeout, bindings: Bindings) -> Plan:
    """Compile ``timeout``.

    An attempt was cut off if no response was received, and its error names a timeout, or the callee ran on after the
    caller had given up. A cancellation, or no response without any error, counts only if the caller's entry span went
    on afterwards or recorded a response status: otherwise the caller's own caller may have gone away.
    """
    assert isinstance(claim.call, s.CallSelection)  # noqa: S101 (checked before)
    rows = select_rows(replace(claim.call, attempts=True), SqlParameters(reading=bindings.reading), bindings)
    rows.aliases.needed_joins.update(("client", "server"))
    rows.tables.append(
        f"LEFT JOIN {rows.parameters.table('topology')} entry ON entry.span_key = c.caller_entry"
        " LEFT JOIN spans entry_span ON entry_span.span_key = c.caller_entry"
        f" LEFT JOIN {rows.parameters.table('topology')} served ON served.span_key = c.server_key"
    )
    limit = compile_limit(claim.limit, bindings, rows.parameters)
    sql = rows.build_select(
        f"c.trace_id, c.duration_ns <= {limit} AS ok, c.duration_ns AS value, {rows.witness_sql} AS witness,"
        f" -c.duration_ns AS rank, {SQL.null('integers')} AS note",
        f"(c.duration_ns > {limit} OR {_compile_cut_off()})",
    )
    return Plan(sql, rows.parameters.values, "all", ValueType("duration"), is_stable=True, needs_occasion=True)


def _compile_cut_off() -> str:
    """Return the SQL that tests whether the attempt `c` was cut off."""
    error_type = SQL.attribute("client.attributes", "error.type")
    rpc_status = SQL.attribute("client.attributes", "rpc.response.status_code")
    exceptions = [
        SQL.join_list(SQL.map_list("client.events", "event", SQL.attribute("event.attributes", name)), " ")
        for name in ("exception.type", "exception.message")
    ]
    error_text = f"concat_ws(' ', {error_type}, client.status_message, {', '.join(exceptions)})"
    # a message may speak of aborted connections, too
    error_kind = (
        f"concat_ws(' ', {error_type}, {exceptions[0]}, {SQL.extract('client.status_message', _CONTEXT_CANCELED)})"
    )
    names_timeout = (
        f"(coalesce({SQL.matches(error_text, SQL.quote(_TIMEOUT_KINDS))}, false)"
        f" OR coalesce({rpc_status} IN {_DEADLINE_EXCEEDED}, false))"
    )
    names_abort = (
        f"(coalesce({SQL.matches(error_kind, SQL.quote(_ABORT_KINDS))}, false)"
        f" OR coalesce({rpc_status} IN {_CANCELLED}, false))"
    )
    names_nothing = f"(NOT c.error AND {error_text} = '')"
    # outside HTTP, the client's span does not tell whether a response was received
    has_callee_status = f"({rpc_status} IS NOT NULL AND {rpc_status} NOT IN {_CANCELLED})"
    no_response = f"NOT coalesce(c.responded, {has_callee_status} AND NOT {names_timeout})"
    ran_on = "coalesce(served.end_ns - served.start_ns > c.duration_ns, false)"
    answered = " OR ".join(
        f"{SQL.attribute('entry_span.attributes', name)} IS NOT NULL"
        for name in ("http.response.status_code", "rpc.response.status_code")
    )
    # a span that is cut off with its caller ends a moment later: it still has to clean up
    went_on = f"(entry.end_ns > c.end_ns + (SELECT max_clock_skew_ns FROM rules) OR {answered})"
    return (
        f"(coalesce(c.end_ns IS NOT NULL AND {no_response}, false) AND ({names_timeout} OR {ran_on}"
        f" OR (({names_abort} OR {names_nothing} AND c.responded IS NOT NULL) AND coalesce({went_on}, false))))"
    )
