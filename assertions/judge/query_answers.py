"""Answers to metric queries over stored traces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import duckdb
from msgspec import Struct

from spanproof.assertions.explain.claim_text import find_selections
from spanproof.assertions.explain.hints import suggest_nearest
from spanproof.assertions.findings.finding_counts import GroupKey, read_group_key
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.traces.retention import find_last_expired_start_ns
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.compile.queries import compile_query, infer_query_type
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

_HAS_UNFINISHED_SQL: Final = "SELECT EXISTS (FROM topology SEMI JOIN selected USING (trace_id) WHERE end_ns IS NULL)"


class AnswerGroup(Struct, frozen=True):
    """The number of one group: ``at_ns`` is the start of its time step, ``n`` its sample size."""

    key: GroupKey
    at_ns: int | None
    n: int
    value: int | float | None


class QueryAnswer(Struct, frozen=True):
    """The answer to a query: durations in nanoseconds, rates per second.

    ``incomplete`` of the ``traces`` of the window lack spans. Up to 1 % incomplete traces are left out; above that,
    the numbers include them. ``growing`` further traces are left out, because spans of them still arrive.
    ``unfinished`` values are left out, because a span has not ended.
    ``forgotten_until_ns`` is the start of the last deleted trace of the window, None if no trace was deleted. ``hint``
    names the nearest services or operations if nothing matched.
    """

    type: ValueType
    traces: int
    incomplete: int
    forgotten_until_ns: int | None
    groups: tuple[AnswerGroup, ...]
    growing: int = 0
    hint: str | None = None
    unfinished: int = 0

    @property
    def n(self) -> int:
        """Number of values behind all groups."""
        return _count_values(self.groups)


def answer_query(connection: duckdb.DuckDBPyConnection, query: s.MetricQuery) -> QueryAnswer:
    """Answer a query over the stored and derived traces. Raises MissingValue, duckdb.Error."""
    judge = Judge(connection)
    window = judge.select_window(query.given, Bindings())
    traces = "complete" if judge.is_nearly_complete else "selected"
    groups = _read_groups(connection, query, traces, Reading())
    unfinished = 0
    ((has_unfinished,),) = connection.execute(_HAS_UNFINISHED_SQL).fetchall()
    if has_unfinished:
        ended = _read_groups(connection, query, traces, Reading(has_unfinished=True))  # as if all spans had ended
        unfinished = max(0, _count_values(ended) - _count_values(groups))
    # read after the query, because more traces may be deleted meanwhile
    forgotten_until_ns = find_last_expired_start_ns(connection, window.begin_ns)
    hint = None
    if window.traces and not any(group.n for group in groups):
        hint = suggest_nearest(connection, find_selections(query.value), Bindings())
    return QueryAnswer(
        infer_query_type(query),
        window.traces,
        window.incomplete,
        forgotten_until_ns,
        groups,
        window.growing,
        hint,
        unfinished,
    )


def _read_groups(
    connection: duckdb.DuckDBPyConnection, query: s.MetricQuery, traces: str, reading: Reading
) -> tuple[AnswerGroup, ...]:
    sql, parameters = compile_query(query, traces, reading)
    rows = connection.execute(sql, parameters).fetchall()
    return tuple(AnswerGroup(read_group_key(key) if query.by else (), at_ns, n, value) for key, at_ns, value, n in rows)


def _count_values(groups: Iterable[AnswerGroup]) -> int:
    return sum(group.n for group in groups)
