"""Openings of circuits: the SQL against a walk through the attempts, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import duckdb
import pytest

from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.circuit import ATTEMPT_TOO_EARLY, TOO_MANY_PROBES, compile_circuit
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import parse_claim

SEQUENCES = 100
_INSERT_SQL = """
DELETE FROM resources; DELETE FROM topology; DELETE FROM attempts;
INSERT INTO resources BY NAME SELECT
    1 AS resource_key, 'a' AS service, {'keys': [], 'texts': []} AS attributes, '' AS attribute_kinds,
    0 AS dropped_attributes_count, '[]' AS entity_refs, '' AS schema_url;
INSERT INTO topology BY NAME SELECT
    uuid() AS trace_id, key AS span_key, false AS orphan, false AS is_entry, true AS definite, 0 AS depth,
    false AS error, 'a' AS service, 'GET' AS name, 3 AS kind, start_ns, end_ns, 1 AS resource_key,
    3 AS role
FROM made;
INSERT INTO attempts BY NAME SELECT
    trace_id, span_key AS call_key, span_key AS attempt_key, 1 AS attempt, 0 AS tier, 'unpaired' AS shape,
    'a' AS caller, 'b' AS callee, 'GET' AS operation, 'http' AS protocol, false AS async, span_key AS client_key,
    start_ns, end_ns, 0 AS status, failed AS error, failed, failed AS retryable, false AS arrived, true AS is_call,
    true AS definite
FROM topology JOIN (SELECT key AS span_key, failed FROM made) USING (span_key);
CREATE OR REPLACE TEMP TABLE selected AS SELECT DISTINCT trace_id, true AS settled, true AS trusting FROM attempts;
"""


@dataclass(frozen=True)
class Attempt:
    """An attempt; results are ordered by `end_ns`, which differ."""

    key: int
    start_ns: int
    end_ns: int
    failed: bool


@pytest.mark.parametrize("holds_ns", [None, 1, 15, 60])
def test_openings_are_those_of_a_walk(holds_ns: int | None) -> None:
    with Store.open(settings={"threads": "1"}) as store, closing(store.cursor()) as connection:
        for seed in range(SEQUENCES // 4):
            choices = random.Random(seed)  # noqa: S311 (test data)
            attempts = make_attempts(choices)
            failures, probes = choices.randint(1, 3), choices.randint(1, 3)
            holds = "" if holds_ns is None else f", holds >= {holds_ns}ns"
            claim = f"circuit a -> b {{ opens after {failures} failures, probes <= {probes}{holds} }}"
            expected = sorted(judge_openings(attempts, failures, probes, holds_ns))
            assert find_openings(connection, attempts, claim) == expected, (claim, attempts)


def make_attempts(choices: random.Random) -> list[Attempt]:
    """Return attempts of one caller; some have no duration."""
    ends: set[int] = set()
    attempts = []
    for key in range(choices.randint(1, 30)):
        start_ns = choices.randint(0, 300)
        end_ns = start_ns + choices.choice([0, 1, 5, 10, 30])
        if end_ns not in ends:
            ends.add(end_ns)
            attempts.append(Attempt(key, start_ns, end_ns, choices.random() < 0.6))
    return attempts


def judge_openings(
    attempts: list[Attempt], failures: int, probes: int, holds_ns: int | None
) -> Iterator[tuple[int, int, int]]:
    """Yield the key of each opening, the reason why it does not hold (0: none), and the number of probes."""
    streak, closed_ns, is_walking = 0, -1, True
    results = sorted(attempts, key=lambda attempt: attempt.end_ns)
    opened = []
    for position, attempt in enumerate(results):
        streak = streak + 1 if attempt.failed else 0
        if streak == failures:
            opened.append(position)
    while opened and is_walking:
        first = results[opened.pop(0)]
        if holds_ns is not None and first.end_ns <= closed_ns:
            continue
        current: Attempt | None = first
        while current is not None:
            later = [each for each in attempts if each is not current and each.start_ns >= current.end_ns]
            first_end_ns = min((each.end_ns for each in later), default=-1)
            count = sum(each.start_ns < first_end_ns for each in later)
            next_ns = min((each.start_ns for each in later), default=None)
            is_early = next_ns is not None and (holds_ns is None or next_ns < current.end_ns + holds_ns)
            reason = ATTEMPT_TOO_EARLY if is_early else TOO_MANY_PROBES if count > probes else 0
            yield current.key, reason, count
            if holds_ns is None:
                break
            is_walking = bool(later) and not is_early
            result = next((each for each in later if each.end_ns == first_end_ns), None) if is_walking else None
            closed_ns = first_end_ns
            current = result if result is not None and result.failed else None


def find_openings(
    connection: duckdb.DuckDBPyConnection, attempts: list[Attempt], claim: str
) -> list[tuple[int, int, int]]:
    """Return the key, the reason and the number of probes of each opening that the query finds."""
    expectation = parse_claim(claim).expectation
    assert expectation is not None
    assert isinstance(expectation.claim, s.Circuit)
    plan = compile_circuit(expectation.claim, Bindings())
    rows = ", ".join(f"({each.key}, {each.start_ns}, {each.end_ns}, {each.failed})" for each in attempts)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE made AS FROM (VALUES {rows}) made(key, start_ns, end_ns, failed)")
    connection.execute(_INSERT_SQL)
    findings = connection.execute(plan.sql, plan.parameters).fetchall()
    return sorted((key, reason or 0, probes) for *_, [key], _, [reason, probes] in findings)
