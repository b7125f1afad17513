"""Verdicts on a window some of whose traces the store has deleted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from msgspec.structs import replace

from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.run.events import ClaimJudged, RunEvent
from spanproof.assertions.run.runner import Runner
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.retention import RetentionLimits, delete_expired_traces
from spanproof.query_lang.load.submitted_proofs import read_submitted_proof
from spanproof.tests.api.stored_traces import StoredSpan, Value, append

DAY_NS = 86_400_000_000_000
# traces 1 to 10 start 1000 s apart; 1 to 5 are deleted
FIRST, FIFTH, SIXTH = "2026-01-31T12:10:00Z", "2026-01-31T13:23:20Z", "2026-01-31T13:23:21Z"
NOTE = f"but traces of the window up to {FIFTH} were deleted"
Judge = Callable[..., Verdict]


@pytest.fixture
def judge(store: Store) -> Judge:
    orders: dict[str, Value] = {"server.address": "orders"}
    for number in range(1, 11):
        begin = number * 1_000_000
        append(
            store,
            StoredSpan("gateway", "GET /", number, 1, ms=(begin, begin + 100)),
            StoredSpan("gateway", "GET", number, 2, 1, "client", (begin + 10, begin + 90), attributes=orders),
        )
    with closing(store.cursor()) as cursor:
        cursor.execute("UPDATE spans SET arrived_ns = arrived_ns - ?", [10_000_000_000])
        cursor.execute("UPDATE spans SET arrived_ns = arrived_ns - ? WHERE span_key <= 10", [DAY_NS])
    assert delete_expired_traces(store, RetentionLimits(max_age_ns=DAY_NS // 2)) == 10

    def judge(claim: str, since: str = FIRST, baseline: str | None = None) -> Verdict:
        compare = "" if baseline is None else f'  compare baseline from gateway since "{baseline}"\n'
        text = f'proof "p" {{\n  given traces since "{since}"\n{compare}  expect {claim}\n}}\n'
        module = read_submitted_proof(text, "p.proof", allow_requests=False)
        assert module.diagnostics == ()
        judged: list[ClaimJudged] = []

        def collect(event: RunEvent) -> None:
            if isinstance(event, ClaimJudged):
                judged.append(event)

        Runner(store, collect).run([(module, proof) for proof in module.proofs])
        (one,) = judged
        return one.verdict

    return judge


@pytest.mark.parametrize(
    "claim",
    [
        "no gateway -> payments",
        "no path gateway -> payments",
        "path gateway -> orders",
        "some gateway -> orders",
        "every gateway has duration < 1s",
        "duration(gateway) < 1s",
        "p95(duration(gateway)) < 1s",
        "count(gateway) < 100",
        "count(gateway) == 5",
        "error_rate(gateway) == 0%",
        "path gateway -> orders in >= 50% of traces",
        "count(gateway) >= 3 by name",
        "no retry gateway -> orders",
    ],
)
def test_pass_is_inconclusive_with_deleted_traces(judge: Judge, claim: str) -> None:
    complete = judge(claim, SIXTH)
    assert (complete.outcome, "deleted" in complete.reason) == (Outcome.PASS, False)
    for since in (FIRST, FIFTH):
        partial = judge(claim, since)
        assert (partial.outcome, partial.id) == (Outcome.INCONCLUSIVE, "forgotten")
        assert partial.reason == f"{complete.reason}, {NOTE}"
        assert replace(partial, outcome=complete.outcome, id=complete.id, reason=complete.reason) == complete


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        ("count(traces) >= 5", Outcome.PASS),
        ("max(duration(gateway)) > 50ms", Outcome.PASS),
        ("error_rate(gateway) < 90% with confidence 95%", Outcome.PASS),
        ("count(traces) >= 6", Outcome.FAIL),
        ("no gateway -> orders", Outcome.FAIL),
        ("some gateway -> payments", Outcome.FAIL),
        ("duration(payments) < 1s", Outcome.INCONCLUSIVE),  # nothing matched
    ],
)
def test_other_verdicts_mention_deleted_traces(judge: Judge, claim: str, outcome: Outcome) -> None:
    complete, partial = judge(claim, SIXTH), judge(claim)
    assert (complete.outcome, "deleted" in complete.reason) == (outcome, False)
    assert partial == replace(complete, reason=f"{complete.reason}, {NOTE}")


def test_deleted_baseline_affects_comparisons_only(judge: Judge) -> None:
    claim = "p95(duration(gateway)) <= baseline * 2"
    assert judge(claim, SIXTH, baseline=SIXTH).outcome is Outcome.PASS
    assert judge(claim, SIXTH, baseline=FIRST).id == "forgotten"
    assert judge(claim, FIRST, baseline=SIXTH).id == "forgotten"
    assert judge("p95(duration(gateway)) < 1s", SIXTH, baseline=FIRST).outcome is Outcome.PASS
    sampled = judge("error_rate(gateway) not worse than baseline by 90pp", SIXTH, baseline=FIRST)
    assert (sampled.outcome, NOTE in sampled.reason) == (Outcome.PASS, True)
