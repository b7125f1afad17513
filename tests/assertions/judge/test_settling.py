"""When a trace is complete, and which verdicts can be given before it is."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pytest

from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.calls.derivation import DERIVED_TABLES, derive_calls
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.completeness import (
    DEFAULT_IDLE_NS,
    UNCERTAIN_IDLE_NS,
    Completeness,
    check_completeness,
    find_related_traces,
)
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax.parser import parse_claim

Add = Callable[..., None]
SECOND_NS = 1_000_000_000
FIRST = f"{1:032x}"
Missed = tuple[str, bool, str | None, str | None]


def look(connection: duckdb.DuckDBPyConnection, trace_id: str) -> Completeness:
    return check_completeness(connection, find_related_traces(connection, trace_id))


def missing(connection: duckdb.DuckDBPyConnection) -> list[Missed]:
    return [(each.kind, each.is_certain, each.caller, each.callee) for each in look(connection, FIRST).missing]


def quiet(state: Completeness, asked_ns: int | None = None) -> int | None:
    """How long after the last arrival it is settled."""
    until = state.compute_settle_time_ns(asked_ns)
    return None if until is None or state.last_arrived_ns is None else until - state.last_arrived_ns


# ## What is missing


def test_of_a_trace_without_spans_everything_is_missing(connection: duckdb.DuckDBPyConnection) -> None:
    state = look(connection, FIRST)
    assert [str(each) for each in state.missing] == ["no span of this trace has arrived"]
    assert quiet(state) is None
    assert quiet(state, 0) is None


def test_a_trace_with_its_root_and_no_call_misses_nothing(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    state = look(connection, FIRST)
    assert state.missing == ()
    assert quiet(state) == DEFAULT_IDLE_NS
    assert quiet(state, 7) == 7


def test_without_the_root_nothing_is_settled(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("bank", 2, parent=1)
    assert ("root", True, None, None) in missing(connection)
    assert ("parent", True, "bank", "bank server") in missing(connection)
    assert quiet(look(connection, FIRST), 0) is None


def test_a_parent_that_is_missing_below_the_root_is_awaited(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("bank", 3, parent=2)
    assert missing(connection) == [("parent", True, "bank", "bank server")]


def test_our_own_request_is_no_parent_to_wait_for(
    add: Add, store: Store, connection: duckdb.DuckDBPyConnection
) -> None:
    connection.execute("INSERT INTO triggers VALUES ($trace::UUID, 99)", {"trace": FIRST})
    add("shop", 1, parent=99)
    assert missing(connection) == []


def test_a_call_to_a_known_service_must_be_answered(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("bank", 1, trace=2)
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="bank.internal")
    assert missing(connection) == [("answer", True, "shop", "bank")]
    assert str(look(connection, FIRST).missing[0]) == "`shop` called `bank`, whose own span has not arrived"
    add("bank", 3, 2)
    assert missing(connection) == []


def test_a_call_to_an_address_that_answered_before_must_be_answered(
    add: Add, connection: duckdb.DuckDBPyConnection
) -> None:
    there = {"server__address": "10.0.0.7", "server__port": 8080}
    add("shop", 1, trace=2)
    add("shop", 2, 1, "client", trace=2, **there)
    add("bank", 3, 2, trace=2)
    add("shop", 1)
    add("shop", 2, 1, "client", **there)
    assert missing(connection) == [("answer", True, "shop", "bank")]


def test_a_call_that_failed_may_never_be_answered(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("bank", 1, trace=2)
    add("shop", 1)
    add("shop", 2, 1, "client", error=True, server__address="bank")
    assert missing(connection) == [("answer", False, "shop", "bank")]
    assert quiet(look(connection, FIRST)) == UNCERTAIN_IDLE_NS
    assert quiet(look(connection, FIRST), DEFAULT_IDLE_NS) == DEFAULT_IDLE_NS


def test_a_database_is_not_awaited(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "client", db__system__name="postgresql", server__address="db.internal")
    assert missing(connection) == []


def test_whether_an_unknown_peer_answers_only_time_can_tell(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="api.example.com")
    assert missing(connection) == [("peer", False, "shop", "api.example.com")]
    assert quiet(look(connection, FIRST)) == UNCERTAIN_IDLE_NS


def test_a_peer_that_never_answered_is_not_awaited_again(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1, trace=2)
    add("shop", 2, 1, "client", trace=2, server__address="api.example.com", server__port=443)
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="api.example.com", server__port=443)
    assert [kind for kind, *_ in missing(connection)] == ["peer"]
    connection.execute(
        "UPDATE spans SET arrived_ns = arrived_ns - $long WHERE trace_id <> $first::UUID",
        {"long": UNCERTAIN_IDLE_NS + SECOND_NS, "first": FIRST},
    )
    assert missing(connection) == []
    assert quiet(look(connection, FIRST)) == DEFAULT_IDLE_NS


def test_a_message_that_nobody_took_is_awaited_for_a_while(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "producer", messaging__system="nats")
    assert missing(connection) == [("consumer", False, "shop", "nats")]
    assert quiet(look(connection, FIRST)) == UNCERTAIN_IDLE_NS


def test_a_trace_that_a_message_leads_to_is_judged_along(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "producer")
    add("mail", 1, 0, "consumer", trace=2, link=(1, 2))
    state = look(connection, FIRST)
    assert state.missing == ()
    assert state.trace_ids == (FIRST, f"{2:032x}")
    add("mail", 9, 8, "internal", trace=2)
    assert missing(connection) == [("parent", True, "mail", "mail internal")]


# ## Late and repeated spans


def derived(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(connection.execute(f"FROM {table}").fetchall(), key=str) for table in DERIVED_TABLES}


def test_a_late_parent_puts_its_children_in_their_place(
    add: Add, store: Store, connection: duckdb.DuckDBPyConnection
) -> None:
    add("bank", 3, 2)
    add("shop", 1)
    assert connection.execute("SELECT count(*) FROM calls").fetchall() == [(0,)]
    add("shop", 2, 1, "client")
    assert connection.execute("SELECT caller, callee, definite FROM calls").fetchall() == [("shop", "bank", True)]
    assert missing(connection) == []
    assert derive_calls(store) == 0


def test_repeated_spans_change_nothing(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    def send() -> None:
        add("shop", 1)
        add("shop", 2, 1, "client", server__address="bank")
        add("bank", 3, 2)
        add("shop", 4, 1, "producer")
        add("mail", 1, 0, "consumer", trace=2, link=(1, 4))

    send()
    before, state = derived(connection), look(connection, FIRST)
    send()
    assert derived(connection) == before
    assert (look(connection, FIRST).trace_ids, look(connection, FIRST).missing) == (state.trace_ids, state.missing)


def test_of_a_span_sent_again_the_one_that_ends_last_stays(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    for end in (10, 30, 20):
        add("shop", 1, ms=(0, end))
    assert connection.execute("SELECT (end_ns - start_ns) // 1000000 FROM spans").fetchall() == [(30,)]


# ## Verdicts while spans may still come


@pytest.fixture
def judge(connection: duckdb.DuckDBPyConnection) -> Callable[..., Verdict]:
    def judge(claim: str, *, settled: bool = False, live: bool = True) -> Verdict:
        parsed = parse_claim(claim)
        assert check_claim(parsed) == ()
        assert parsed.expectation is not None
        judge = Judge(connection)
        state = look(connection, FIRST)
        judge.select_traces(
            SelectedTraces(dict.fromkeys(state.trace_ids, settled), live, tuple(str(each) for each in state.missing))
        )
        return judge.judge(parsed.expectation, claim, Bindings())

    return judge


@pytest.fixture
def called(add: Add) -> Add:
    """A shop that has called a bank, and may call others."""
    add("shop", 1, ms=(0, 100))
    add("shop", 2, 1, "client", ms=(10, 40))
    add("bank", 3, 2, ms=(15, 35))
    return add


FINAL_PASS, FINAL_FAIL, OPEN = (Outcome.PASS, True), (Outcome.FAIL, True), (Outcome.INCONCLUSIVE, False)


@pytest.mark.parametrize(
    ("claim", "verdict", "settled_verdict"),
    [
        ("path shop -> bank", FINAL_PASS, FINAL_PASS),
        ("path shop -> mail", OPEN, FINAL_FAIL),
        ("some bank", FINAL_PASS, FINAL_PASS),
        ("some shop -> bank", FINAL_PASS, FINAL_PASS),
        ("some mail", OPEN, FINAL_FAIL),
        ("no path shop -> mail", OPEN, FINAL_PASS),
        ("no path shop -> bank", FINAL_FAIL, FINAL_FAIL),
        ("no mail", OPEN, FINAL_PASS),
        ("no bank", FINAL_FAIL, FINAL_FAIL),
        ("every span has duration < 1s", OPEN, FINAL_PASS),
        ("every span has duration < 50ms", FINAL_FAIL, FINAL_FAIL),
        ("every shop -> bank has duration < 1ms", OPEN, FINAL_FAIL),
        ("every shop -> bank has duration < 1s", OPEN, FINAL_PASS),
        ("every try shop -> bank has duration < 1ms", FINAL_FAIL, FINAL_FAIL),
        ("count(span shop) >= 2", FINAL_PASS, FINAL_PASS),
        ("count(span shop) > 2", OPEN, FINAL_FAIL),
        ("count(span shop) <= 1", FINAL_FAIL, FINAL_FAIL),
        ("count(span shop) <= 2", OPEN, FINAL_PASS),
        ("count(span shop) == 1", FINAL_FAIL, FINAL_FAIL),
        ("count(span shop) == 2", OPEN, FINAL_PASS),
        ("count(span shop) == 3", OPEN, FINAL_FAIL),
        ("max(duration(span)) < 50ms", FINAL_FAIL, FINAL_FAIL),
        ("max(duration(span)) > 50ms", FINAL_PASS, FINAL_PASS),
        ("min(duration(span)) < 50ms", FINAL_PASS, FINAL_PASS),
        ("min(duration(span)) > 50ms", FINAL_FAIL, FINAL_FAIL),
        ("avg(duration(span)) < 50ms", OPEN, FINAL_FAIL),
        ("error_rate(*) == 0%", OPEN, FINAL_PASS),
        ("self_time(shop) < 1ms", OPEN, FINAL_FAIL),
        ("no retry shop -> bank", OPEN, FINAL_PASS),
        ("1 + 1 == 2", FINAL_PASS, FINAL_PASS),
        ("1 + 1 == 3", FINAL_FAIL, FINAL_FAIL),
    ],
)
def test_a_verdict_is_given_as_soon_as_nothing_can_change_it(
    called: Add,
    judge: Callable[..., Verdict],
    claim: str,
    verdict: tuple[Outcome, bool],
    settled_verdict: tuple[Outcome, bool],
) -> None:
    live, settled = judge(claim), judge(claim, settled=True)
    assert (live.outcome, live.final) == verdict, live
    assert (settled.outcome, settled.final) == settled_verdict, settled


def test_a_witness_whose_place_may_change_is_no_witness_yet(add: Add, judge: Callable[..., Verdict]) -> None:
    add("shop", 2, 1, "client")
    add("bank", 3, 2)
    assert (judge("path shop -> bank").outcome, judge("path shop -> bank").final) == OPEN
    add("shop", 1)
    assert (judge("path shop -> bank").outcome, judge("path shop -> bank").final) == FINAL_PASS


def test_an_absence_broken_late_is_a_failure(called: Add, judge: Callable[..., Verdict]) -> None:
    assert judge("no path shop -> mail").outcome is Outcome.INCONCLUSIVE
    called("shop", 4, 1, "client", ms=(50, 60))
    called("mail", 5, 4, ms=(51, 59))
    assert judge("no path shop -> mail").outcome is Outcome.FAIL


def test_at_the_deadline_what_is_open_names_what_is_missing(called: Add, judge: Callable[..., Verdict]) -> None:
    called("mail", 9, 8)
    verdict = judge("no path shop -> backup", live=False)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "`mail` sent the span `mail server`, whose parent has not arrived" in verdict.reason


@pytest.mark.parametrize("claim", ["no path shop -> mail", "every span has duration < 1s", "count(mail) == 0"])
def test_what_was_dropped_or_not_sampled_makes_a_bound_inconclusive(
    called: Add, connection: duckdb.DuckDBPyConnection, judge: Callable[..., Verdict], claim: str
) -> None:
    connection.execute("UPDATE spans SET dropped_attributes_count = 2 WHERE service = 'bank'")
    verdict = judge(claim, settled=True)
    assert (verdict.outcome, verdict.id) == (Outcome.INCONCLUSIVE, "lossy")
    assert judge("path shop -> bank", settled=True).outcome is Outcome.PASS


@pytest.mark.parametrize("claim", ["no path shop -> mail", "every span has duration < 1s", "count(mail) == 0"])
def test_nor_does_such_a_trace_count_in_a_share(
    called: Add, connection: duckdb.DuckDBPyConnection, judge: Callable[..., Verdict], claim: str
) -> None:
    assert judge(f"{claim} in >= 99% of traces", settled=True).outcome is Outcome.PASS
    connection.execute("UPDATE spans SET dropped_attributes_count = 2 WHERE service = 'bank'")
    assert judge(f"{claim} in >= 99% of traces", settled=True).outcome is Outcome.INCONCLUSIVE
    assert judge(f"{claim} in >= 0% of traces", settled=True).outcome is Outcome.PASS
    assert judge("path shop -> bank in >= 99% of traces", settled=True).outcome is Outcome.PASS
