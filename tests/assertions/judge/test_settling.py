"""Completeness of traces, and the verdicts that are final before it."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pytest

from spanproof.assertions.findings.judged_traces import SelectedTraces, TraceWindow
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.calls.derivation import DERIVED_TABLES, derive_calls
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.completeness import (
    DEFAULT_IDLE_NS,
    UNCERTAIN_IDLE_NS,
    UNKNOWN_LATENESS_IDLE_NS,
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


def check_trace(connection: duckdb.DuckDBPyConnection, trace_id: str) -> Completeness:
    return check_completeness(connection, find_related_traces(connection, trace_id))


def list_missing(connection: duckdb.DuckDBPyConnection) -> list[Missed]:
    return [(each.kind, each.is_certain, each.caller, each.callee) for each in check_trace(connection, FIRST).missing]


def compute_settle_delay_ns(state: Completeness, quiet_ns: int | None = None) -> int | None:
    """Return the time from the last arrival until the trace is settled, in nanoseconds."""
    times = state.compute_settle_times_ns(quiet_ns)
    until = None if times is None else times.absence_ns
    return None if until is None or state.last_arrived_ns is None else until - state.last_arrived_ns


# ## Missing spans


def test_empty_trace_misses_everything(connection: duckdb.DuckDBPyConnection) -> None:
    state = check_trace(connection, FIRST)
    assert [str(each) for each in state.missing] == ["no span of this trace has arrived"]
    assert compute_settle_delay_ns(state) is None
    assert compute_settle_delay_ns(state, 0) is None


def test_root_without_calls_is_complete(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    state = check_trace(connection, FIRST)
    assert state.missing == ()
    assert compute_settle_delay_ns(state) == UNKNOWN_LATENESS_IDLE_NS
    assert compute_settle_delay_ns(state, 7) == 7


def test_missing_root_prevents_settling(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("bank", 2, parent=1)
    assert ("root", True, None, None) in list_missing(connection)
    assert ("parent", True, "bank", "bank server") in list_missing(connection)
    assert compute_settle_delay_ns(check_trace(connection, FIRST), 0) is None


def test_missing_parent_is_awaited(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("bank", 3, parent=2)
    assert list_missing(connection) == [("parent", True, "bank", "bank server")]


def test_trigger_span_is_not_awaited(add: Add, store: Store, connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("INSERT INTO triggers VALUES ($trace::UUID, 99)", {"trace": FIRST})
    add("shop", 1, parent=99)
    assert list_missing(connection) == []


def test_answer_of_known_service_is_awaited(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("bank", 1, trace=2)
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="bank.internal")
    assert list_missing(connection) == [("answer", True, "shop", "bank")]
    assert str(check_trace(connection, FIRST).missing[0]) == "`shop` called `bank`, whose own span has not arrived"
    add("bank", 3, 2)
    assert list_missing(connection) == []


def test_answer_of_known_address_is_awaited(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    address = {"server__address": "10.0.0.7", "server__port": 8080}
    add("shop", 1, trace=2)
    add("shop", 2, 1, "client", trace=2, **address)
    add("bank", 3, 2, trace=2)
    add("shop", 1)
    add("shop", 2, 1, "client", **address)
    assert list_missing(connection) == [("answer", True, "shop", "bank")]


def test_answer_of_failed_call_is_uncertain(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("bank", 1, trace=2)
    add("shop", 1)
    add("shop", 2, 1, "client", error=True, server__address="bank")
    assert list_missing(connection) == [("answer", False, "shop", "bank")]
    assert compute_settle_delay_ns(check_trace(connection, FIRST)) == UNCERTAIN_IDLE_NS
    assert compute_settle_delay_ns(check_trace(connection, FIRST), DEFAULT_IDLE_NS) == DEFAULT_IDLE_NS


def test_database_span_is_not_awaited(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "client", db__system__name="postgresql", server__address="db.internal")
    assert list_missing(connection) == []


def test_answer_of_unknown_peer_is_uncertain(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="api.example.com")
    assert list_missing(connection) == [("peer", False, "shop", "api.example.com")]
    assert compute_settle_delay_ns(check_trace(connection, FIRST)) == UNCERTAIN_IDLE_NS


def test_silent_peer_is_not_awaited_again(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1, trace=2)
    add("shop", 2, 1, "client", trace=2, server__address="api.example.com", server__port=443)
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="api.example.com", server__port=443)
    assert [kind for kind, *_ in list_missing(connection)] == ["peer"]
    connection.execute(
        "UPDATE spans SET arrived_ns = arrived_ns - $long WHERE trace_id <> $first::UUID",
        {"long": UNCERTAIN_IDLE_NS + SECOND_NS, "first": FIRST},
    )
    assert list_missing(connection) == []
    state = check_trace(connection, FIRST)
    assert state.lateness_ns is not None
    assert compute_settle_delay_ns(state) == max(DEFAULT_IDLE_NS, 2 * state.lateness_ns)


def test_late_spans_of_earlier_traces_are_awaited_twice_as_long(
    add: Add, connection: duckdb.DuckDBPyConnection
) -> None:
    add("shop", 1, trace=2)
    add("shop", 2, 1, "internal", trace=2)
    connection.execute(
        "UPDATE spans SET arrived_ns = arrived_ns + $late WHERE trace_id <> $first::UUID AND parent_id IS NOT NULL",
        {"late": SECOND_NS, "first": FIRST},
    )
    ((late_ns,),) = connection.execute("SELECT max(arrived_ns) - min(arrived_ns) FROM spans").fetchall()
    add("shop", 1)
    assert compute_settle_delay_ns(check_trace(connection, FIRST)) == 2 * late_ns
    times = check_trace(connection, FIRST).compute_settle_times_ns(None)
    assert times is not None
    assert times.turnable_ns - times.absence_ns == UNCERTAIN_IDLE_NS - 2 * late_ns


def test_client_span_that_its_server_span_hardly_covers_is_uncertain(
    add: Add, connection: duckdb.DuckDBPyConnection
) -> None:
    add("shop", 1, ms=(0, 200))
    add("shop", 2, 1, "client", ms=(0, 200))
    add("bank", 3, 2, ms=(180, 190))
    assert list_missing(connection) == [("uncovered", False, "shop", "bank")]
    assert compute_settle_delay_ns(check_trace(connection, FIRST)) == UNCERTAIN_IDLE_NS
    add("bank", 4, 2, ms=(1, 170))
    assert list_missing(connection) == []


def test_client_span_that_names_its_own_service_is_not_awaited(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "client", service__peer__name="shop")
    assert list_missing(connection) == []


def test_consumer_of_message_is_uncertain(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "producer", messaging__system="nats")
    assert list_missing(connection) == [("consumer", False, "shop", "nats")]
    assert compute_settle_delay_ns(check_trace(connection, FIRST)) == UNCERTAIN_IDLE_NS


def test_linked_consumer_trace_is_included(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    add("shop", 1)
    add("shop", 2, 1, "producer")
    add("mail", 1, 0, "consumer", trace=2, link=(1, 2))
    state = check_trace(connection, FIRST)
    assert state.missing == ()
    assert state.trace_ids == (FIRST, f"{2:032x}")
    add("mail", 9, 8, "internal", trace=2)
    assert list_missing(connection) == [("parent", True, "mail", "mail internal")]


# ## Late and repeated spans


def read_derived_tables(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(connection.execute(f"FROM {table}").fetchall(), key=str) for table in DERIVED_TABLES}


def test_late_parent_places_children(add: Add, store: Store, connection: duckdb.DuckDBPyConnection) -> None:
    add("bank", 3, 2)
    add("shop", 1)
    assert connection.execute("SELECT count(*) FROM calls").fetchall() == [(0,)]
    add("shop", 2, 1, "client")
    assert connection.execute("SELECT caller, callee, definite FROM calls").fetchall() == [("shop", "bank", True)]
    assert list_missing(connection) == []
    assert derive_calls(store) == 0


def test_duplicate_spans_change_nothing(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    def send() -> None:
        add("shop", 1)
        add("shop", 2, 1, "client", server__address="bank")
        add("bank", 3, 2)
        add("shop", 4, 1, "producer")
        add("mail", 1, 0, "consumer", trace=2, link=(1, 4))

    send()
    before, state = read_derived_tables(connection), check_trace(connection, FIRST)
    send()
    assert read_derived_tables(connection) == before
    assert (check_trace(connection, FIRST).trace_ids, check_trace(connection, FIRST).missing) == (
        state.trace_ids,
        state.missing,
    )


def test_duplicate_with_latest_end_is_kept(add: Add, connection: duckdb.DuckDBPyConnection) -> None:
    for end in (10, 30, 20):
        add("shop", 1, ms=(0, end))
    assert connection.execute("SELECT (end_ns - start_ns) // 1000000 FROM spans").fetchall() == [(30,)]


# ## Verdicts before all spans have arrived


@pytest.fixture
def judge(connection: duckdb.DuckDBPyConnection) -> Callable[..., Verdict]:
    def judge(claim: str, *, settled: bool = False, live: bool = True) -> Verdict:
        parsed = parse_claim(claim)
        assert check_claim(parsed) == ()
        assert parsed.expectation is not None
        judge = Judge(connection)
        state = check_trace(connection, FIRST)
        judge.select_traces(
            SelectedTraces(dict.fromkeys(state.trace_ids, settled), live, tuple(str(each) for each in state.missing))
        )
        return judge.judge(parsed.expectation, claim, Bindings())

    return judge


@pytest.fixture
def shop_trace(add: Add) -> Add:
    """A shop has called a bank and may call other services."""
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
def test_verdict_is_final_once_unchangeable(
    shop_trace: Add,
    judge: Callable[..., Verdict],
    claim: str,
    verdict: tuple[Outcome, bool],
    settled_verdict: tuple[Outcome, bool],
) -> None:
    live, settled = judge(claim), judge(claim, settled=True)
    assert (live.outcome, live.final) == verdict, live
    assert (settled.outcome, settled.final) == settled_verdict, settled


def test_indefinite_witness_does_not_decide(add: Add, judge: Callable[..., Verdict]) -> None:
    add("shop", 2, 1, "client")
    add("bank", 3, 2)
    assert (judge("path shop -> bank").outcome, judge("path shop -> bank").final) == OPEN
    add("shop", 1)
    assert (judge("path shop -> bank").outcome, judge("path shop -> bank").final) == FINAL_PASS


def test_late_span_breaks_absence(shop_trace: Add, judge: Callable[..., Verdict]) -> None:
    assert judge("no path shop -> mail").outcome is Outcome.INCONCLUSIVE
    shop_trace("shop", 4, 1, "client", ms=(50, 60))
    shop_trace("mail", 5, 4, ms=(51, 59))
    assert judge("no path shop -> mail").outcome is Outcome.FAIL


def test_verdict_at_deadline_names_missing_span(shop_trace: Add, judge: Callable[..., Verdict]) -> None:
    shop_trace("mail", 9, 8)
    verdict = judge("no path shop -> backup", live=False)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "`mail` sent the span `mail server`, whose parent has not arrived" in verdict.reason


@pytest.mark.parametrize(
    ("traces", "incomplete", "missing"),
    [
        (1, 1, "1 of 1 trace is not complete"),
        (2, 1, "1 of 2 traces is not complete"),
        (3, 2, "2 of 3 traces are not complete"),
    ],
)
def test_window_counts_incomplete_traces(traces: int, incomplete: int, missing: str) -> None:
    assert TraceWindow(0, traces, incomplete, 1).missing == (missing,)
    assert TraceWindow(0, traces, 0, 1).missing == ()


@pytest.mark.parametrize("claim", ["no path shop -> mail", "every span has duration < 1s", "count(mail) == 0"])
def test_dropped_data_makes_bound_inconclusive(
    shop_trace: Add, connection: duckdb.DuckDBPyConnection, judge: Callable[..., Verdict], claim: str
) -> None:
    connection.execute("UPDATE spans SET dropped_attributes_count = 2 WHERE service = 'bank'")
    verdict = judge(claim, settled=True)
    assert (verdict.outcome, verdict.id) == (Outcome.INCONCLUSIVE, "lossy")
    assert verdict.reason.endswith(", but 1 span dropped attributes, events or links")
    assert judge("path shop -> bank", settled=True).outcome is Outcome.PASS


@pytest.mark.parametrize("claim", ["no path shop -> mail", "every span has duration < 1s", "count(mail) == 0"])
def test_lossy_trace_does_not_count_in_share(
    shop_trace: Add, connection: duckdb.DuckDBPyConnection, judge: Callable[..., Verdict], claim: str
) -> None:
    assert judge(f"{claim} in >= 99% of traces", settled=True).outcome is Outcome.PASS
    connection.execute("UPDATE spans SET dropped_attributes_count = 2 WHERE service = 'bank'")
    assert judge(f"{claim} in >= 99% of traces", settled=True).outcome is Outcome.INCONCLUSIVE
    assert judge(f"{claim} in >= 0% of traces", settled=True).outcome is Outcome.PASS
    assert judge("path shop -> bank in >= 99% of traces", settled=True).outcome is Outcome.PASS
