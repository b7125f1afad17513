"""Answers to questions about stored traces."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from spanproof.assertions.evaluate import Judge
from spanproof.collector.retention import find_forgotten
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings
from spanproof.query_lang.questions import compile_question, type_of
from spanproof.query_lang.vocabulary import Type


@dataclass(frozen=True, slots=True)
class Group:
    """The number of one group: ``key`` is the value grouped by, ``at_ns`` the beginning of the step of time."""

    key: str | None
    at_ns: int | None
    n: int
    value: int | float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A question's answer: durations in nanoseconds, rates per second.

    ``incomplete`` of the ``traces`` of the window still lack spans. Up to 1 % of them are left out; where they are
    more, the numbers are of all. Traces of the window that began up to ``forgotten_until_ns`` were forgotten; None if
    none were.
    """

    type: Type
    traces: int
    incomplete: int
    forgotten_until_ns: int | None
    groups: tuple[Group, ...]

    @property
    def n(self) -> int:
        """Of how many values the numbers are made."""
        return sum(group.n for group in self.groups)


def answer(connection: duckdb.DuckDBPyConnection, question: s.Question) -> Answer:
    """Answer a question over what is stored and derived now. Raises NoValue, duckdb.Error."""
    judge = Judge(connection)
    window = judge.select_window(question.given, Bindings())
    sql, parameters = compile_question(question, "complete" if judge.enough_complete else "selected")
    rows = connection.execute(sql, parameters).fetchall()
    groups = tuple(Group(key, at_ns, n, value) for key, at_ns, value, n in rows)
    # read only now: while the numbers were made, more may have been forgotten
    forgotten_until_ns = find_forgotten(connection, window.begin_ns)
    return Answer(type_of(question), window.traces, window.incomplete, forgotten_until_ns, groups)
