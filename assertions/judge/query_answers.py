"""Answers to questions about stored traces."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.traces.retention import find_last_expired_start_ns
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.queries import compile_query, infer_query_type
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """The number of one group: ``key`` is the value grouped by, ``at_ns`` the beginning of the step of time."""

    key: str | None
    at_ns: int | None
    n: int
    value: int | float | None


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """A question's answer: durations in nanoseconds, rates per second.

    ``incomplete`` of the ``traces`` of the window still lack spans. Up to 1 % of them are left out; where they are
    more, the numbers are of all. Traces of the window that began up to ``forgotten_until_ns`` were forgotten; None if
    none were.
    """

    type: ValueType
    traces: int
    incomplete: int
    forgotten_until_ns: int | None
    groups: tuple[AnswerGroup, ...]

    @property
    def n(self) -> int:
        """Of how many values the numbers are made."""
        return sum(group.n for group in self.groups)


def answer_query(connection: duckdb.DuckDBPyConnection, query: s.MetricQuery) -> QueryAnswer:
    """Answer a question over what is stored and derived now. Raises NoValue, duckdb.Error."""
    judge = Judge(connection)
    window = judge.select_window(query.given, Bindings())
    sql, parameters = compile_query(query, "complete" if judge.is_nearly_complete else "selected")
    rows = connection.execute(sql, parameters).fetchall()
    groups = tuple(AnswerGroup(key, at_ns, n, value) for key, at_ns, value, n in rows)
    # read only now: while the numbers were made, more may have been forgotten
    forgotten_until_ns = find_last_expired_start_ns(connection, window.begin_ns)
    return QueryAnswer(infer_query_type(query), window.traces, window.incomplete, forgotten_until_ns, groups)
