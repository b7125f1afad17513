"""Explanations of failures: marks, consequences, missing spans, and the displayed trace."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from spanproof.assertions.explain.source_excerpts import ExcerptLine, MarkedPart
from spanproof.assertions.reports.terminal import TerminalReport, draw_marks
from spanproof.assertions.run.events import ClaimJudged, ProofFinished, RunEvent
from spanproof.assertions.run.runner import Runner
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.export_intervals import read_export_interval_ns
from spanproof.query_lang.load.modules import load_module_text

Add = Callable[..., None]
Prove = Callable[..., str]
SECOND_NS = 1_000_000_000
GIVEN = 'given traces since "2020-01-01T00:00:00Z"'


@pytest.fixture
def events() -> list[RunEvent]:
    return []


@pytest.fixture
def prove(store: Store, events: list[RunEvent]) -> Prove:
    """Return a function that judges claims about trace 1, or about `given`, and returns the printed text."""

    def prove(*claims: str, given: str = f'when trace "{1:032x}"\n  settle within 150ms quiet 10ms') -> str:
        text = f'proof "p" {{\n  {given}\n' + "".join(f"  expect {claim}\n" for claim in claims) + "}\n"
        module = load_module_text(text, Path("p.proof"), "p.proof")
        assert module.diagnostics == ()
        out = io.StringIO()
        report = TerminalReport(Console(file=out, width=200, highlight=False, soft_wrap=True))

        def emit(event: RunEvent) -> None:
            events.append(event)
            report(event)

        Runner(store, emit).run([(module, proof) for proof in module.proofs])
        return out.getvalue()

    return prove


@pytest.fixture
def shop_trace(add: Add) -> Add:
    """A shop calls a stock service, which calls an old bank twice; both calls fail."""
    add("shop", 1, ms=(0, 100))
    add("shop", 2, 1, "client", ms=(10, 40))
    add("stock", 3, 2, ms=(15, 35))
    for number, start in ((4, 20), (6, 27)):
        add("stock", number, 3, "client", ms=(start, start + 5), error=True, http__response__status_code=503)
        add("bank-old", number + 1, number, ms=(start + 1, start + 4), error=True, http__response__status_code=503)
    return add


# ## Marks


@pytest.mark.parametrize(
    ("claim", "marks"),
    [
        (
            "path shop -> stock -> bank",
            "   |                       -----    ^^^^ not taken; nearest: `bank-old`\n"
            "   |                       followed up to here\n",
        ),
        (
            "stock before shop",
            "   |          -----        ^^^^ 1 of 1 traces\n"
            "   |          this must end first\n",
        ),
        (
            "every span has duration < 50ms",
            "   |                ----     ^^^^^^^^^^^^^^^ 100ms; 1 of 7 did not\n"
            "   |                7 matched\n",
        ),
        (
            "retry stock -> bank-old { attempts == 3 }",
            "   |                -----------------   ^^^^^^^^^^^^^ there were 2 attempts"
            " (possible: nothing records that the same was asked for);"
            " 1 of 1 calls\n"
            "   |                1 call to retry\n",
        ),
        (
            "fallback stock -> bank-old => bank-new",
            "   |                   -----------------    ^^^^^^^^ 1 of 1 failed calls\n"
            "   |                   1 call failed\n",
        ),
        (
            "budget 800ms { shop: 5ms }",
            "   |                 -----         ^^^ 80ms\n   |                 of this\n",
        ),
    ],
)  # fmt: skip
def test_failure_marks_failed_and_related_parts(shop_trace: Add, prove: Prove, claim: str, marks: str) -> None:
    shown = prove(claim)
    assert f"4  |   expect {claim}\n{marks}" in shown, shown


def test_observed_gap_has_unit(shop_trace: Add, prove: Prove, events: list[RunEvent]) -> None:
    prove("retry stock -> bank-old { backoff >= 1s }")
    (judged,) = (event for event in events if isinstance(event, ClaimJudged))
    assert (judged.verdict.id, judged.verdict.observed) == ("retry-mismatch", "2ms")


@pytest.mark.parametrize("second_ms", [(20, 30), (30, 40)])  # at the same time, and later
def test_observed_value_belongs_to_witness(
    add: Add, prove: Prove, events: list[RunEvent], second_ms: tuple[int, int]
) -> None:
    add("bank", 1, ms=(20, 30))
    add("bank", 2, ms=second_ms, http__response__status_code=503)
    prove("some bank has http.response.status_code == null or http.response.status_code == 503")
    (judged,) = (event for event in events if isinstance(event, ClaimJudged))
    assert judged.verdict.observed == "missing"
    assert [witness.span_id for witness in judged.verdict.witnesses] == [f"{1:016x}"]


def test_nearest_miss_is_counted_over_traces(
    shop_trace: Add, prove: Prove, connection: duckdb.DuckDBPyConnection
) -> None:
    for trace in range(2, 5):
        shop_trace("shop", 1, trace=trace)
        shop_trace("stock", 2, 1, trace=trace)
        shop_trace("bank-old" if trace < 4 else "mint", 3, 2, trace=trace)
    backdate_arrivals(connection)
    assert "^^^^ 0 of 4 traces; nearest: `bank-old` (3)" in prove("path shop -> stock -> bank", given=GIVEN)


def test_trace_at_aggregate_is_shown(shop_trace: Add, prove: Prove, connection: duckdb.DuckDBPyConnection) -> None:
    for trace in range(2, 22):
        shop_trace("shop", 1, trace=trace, ms=(0, trace))
    backdate_arrivals(connection)
    assert f"= trace {1:032x}, 100 ms, the one at the maximum" in prove("max(duration(shop)) < 50ms", given=GIVEN)
    assert f"= trace {21:032x}, 21 ms, the one at p95" in prove("p95(duration(shop)) < 5ms", given=GIVEN)
    assert ", the one" not in prove("every shop has duration < 5ms", given=GIVEN)


def backdate_arrivals(connection: duckdb.DuckDBPyConnection) -> None:
    """Move all arrival times into the past, so that the traces are complete."""
    connection.execute("UPDATE spans SET arrived_ns = arrived_ns - ?", [60 * SECOND_NS])


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        (ExcerptLine(1, "ab cd", (MarkedPart(1, 2, "x", False), MarkedPart(4, 2, "y", True))), ["-- ^^ y", "x"]),
        (ExcerptLine(1, "ab cd", (MarkedPart(1, 2, "x", True), MarkedPart(4, 2, "y", False))), ["^^ -- y", "x"]),
        (
            ExcerptLine(1, "a b c", tuple(MarkedPart(2 * n + 1, 1, f"t{n}", n == 1) for n in range(3))),
            ["- ^ - t2", "| t1", "t0"],
        ),
        (ExcerptLine(1, "abcdef", (MarkedPart(1, 6, "all", False), MarkedPart(3, 2, "y", True))), ["--^^-- y", "all"]),
        (
            ExcerptLine(1, "\t日本 b", (MarkedPart(2, 2, "x", False), MarkedPart(5, 1, "y", True))),
            ["\t---- ^ y", "\tx"],
        ),
        (ExcerptLine(1, "ab", (MarkedPart(1, 1, "", False), MarkedPart(2, 1, "y", True))), ["-^ y"]),
    ],
)
def test_marks_are_drawn_below_line(line: ExcerptLine, rows: list[str]) -> None:
    assert draw_marks(line) == rows


# ## Consequences


def list_causes(events: list[RunEvent]) -> list[int | None]:
    (event,) = (event for event in events if isinstance(event, ProofFinished))
    return [each.verdict.follows_from for each in event.judged]


def test_missing_service_failures_follow_from_path(shop_trace: Add, prove: Prove, events: list[RunEvent]) -> None:
    shown = prove(
        "count(stock -> bank) == 1",
        "every bank has duration < 50ms",
        "path shop -> stock -> bank -> vault",
        "duration(shop) < 50ms",
        "retry bank -> vault { recovered }",
        "some mint",
    )
    assert list_causes(events) == [2, 2, None, None, 2, None]
    assert "4 failed (1 is a consequence), 2 inconclusive (2 are consequences)" in shown
    explained = [line for line in shown.splitlines() if "a consequence of" in line]
    assert explained == ["   = a consequence of line 6: `stock` called `bank-old`, not `bank`"] * 3
    assert shown.index("fail[path-mismatch]") < shown.index("a consequence of")


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (["count(bank) == 1", "count(mint) == 1"], [None, None]),
        (["count(bank) == 1", "count(bank) == 2"], [None, 0]),
        (["every bank has error", "count(bank) == 1"], [1, None]),
        (["path shop -> stock -> (bank | mint)", "some bank", "count(bank-old) == 9"], [None, 0, None]),
        (["path shop -> stock -> (bank | bank-old)", "some bank"], [None, None]),
        (["count(bank) == 0", "some bank"], [None, None]),
        (["path shop -> bank-old", "path bank-old -> shop"], [None, None]),
    ],
)
def test_only_same_cause_gives_consequence(
    shop_trace: Add, prove: Prove, events: list[RunEvent], claims: list[str], expected: list[int | None]
) -> None:
    prove(*claims)
    assert list_causes(events) == expected


def test_each_request_has_its_own_cause(shop_trace: Add, prove: Prove, events: list[RunEvent]) -> None:
    shop_trace("shop", 1, trace=2)
    prove("some bank", f'1 == 1\n  when trace "{2:032x}"\n  expect some bank')
    assert list_causes(events) == [None, None, None]


# ## Missing spans


def test_missing_span_names_export_interval(
    add: Add, store: Store, connection: duckdb.DuckDBPyConnection, prove: Prove
) -> None:
    for number in range(6):
        add("bank", 1, trace=10 + number)
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="bank")
    connection.execute(
        "UPDATE spans SET arrived_ns = arrived_ns - ($count - span_key) * $gap WHERE service = 'bank'",
        {"count": 10, "gap": 5 * SECOND_NS + 3_000_000},
    )
    shown = prove("no shop -> mint")
    assert (
        "inconclusive[incomplete]: `shop` called `bank`, whose own span has not arrived:"
        " `bank` exported nothing of it; its exporter flushes about every 5 s\n"
    ) in shown


def test_single_export_gives_no_interval(add: Add, prove: Prove) -> None:
    add("bank", 1, trace=10)
    add("shop", 1)
    add("shop", 2, 1, "client", server__address="bank")
    assert "whose own span has not arrived: `bank` exported nothing of it\n" in prove("no shop -> mint")


def test_empty_store_is_reported(add: Add, prove: Prove) -> None:
    message = "no span of this trace has arrived"
    assert f"{message}: nothing has been exported to this collector yet\n" in prove("some shop")
    add("shop", 1, trace=2)
    hint = ", but spans of one other trace have: is traceparent passed on?"
    assert f"inconclusive[incomplete]: {message}{hint}\n" in prove("some shop")


@pytest.mark.parametrize(
    ("gaps_ms", "flush_ms"),
    [([], None), ([5000], None), ([5000, 5000], 5000), ([5000, 20, 5001, 15000, 10000], 5000), ([20, 20, 20], None)],
)
def test_export_interval_is_derived_from_gaps(
    add: Add, connection: duckdb.DuckDBPyConnection, gaps_ms: list[int], flush_ms: int | None
) -> None:
    arrived_ms = 1_000_000_000_000
    for number, gap in enumerate((0, *gaps_ms)):
        arrived_ms += gap
        add("bank", number + 1)
        connection.execute(
            "UPDATE spans SET arrived_ns = ? WHERE span_key = (SELECT max(span_key) FROM spans)",
            [arrived_ms * 1_000_000],
        )
    interval_ns = read_export_interval_ns(connection, "bank")
    assert interval_ns == (None if flush_ms is None else flush_ms * 1_000_000)
    assert read_export_interval_ns(connection, "unknown") is None
