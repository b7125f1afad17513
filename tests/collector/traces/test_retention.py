"""Traces beyond the limits are deleted as a whole, while spans arrive."""

import itertools
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from spanproof.bench.spans import make_requests
from spanproof.collector.calls.derivation import DERIVED_TABLES, derive_calls
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.metrics import Metrics
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.retention import MIN_SIZE_BYTES, Retention, RetentionLimits, delete_expired_traces
from spanproof.tests.command import wait_until

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS


def count(store: Store, table: str = "spans") -> int:
    with closing(store.cursor()) as cursor:
        ((rows,),) = cursor.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
    return int(rows)


def age(store: Store, *, up_to_key: int, by_ns: int) -> None:
    with closing(store.cursor()) as cursor:
        cursor.execute("UPDATE spans SET arrived_ns = arrived_ns - ? WHERE span_key <= ?", [by_ns, up_to_key])


def append(store: Store, requests: int, seed: int = 1) -> None:
    decoder = Decoder()
    for body in itertools.islice(make_requests(512, seed=seed, templates=1), requests):
        store.append(decoder.decode([body]))


def test_trace_expires_with_its_last_span() -> None:
    with Store.open() as store:
        append(store, 3)
        derive_calls(store)
        # the limit splits a trace: its first span is old, its last span is not
        age(store, up_to_key=513, by_ns=DAY_NS)
        before = {table: count(store, table) for table in DERIVED_TABLES}
        assert delete_expired_traces(store, RetentionLimits(max_age_ns=DAY_NS // 2)) == 512
        assert count(store) == 2 * 512
        assert derive_calls(store) == 0
        for table in ("topology", "attempts"):
            assert 0 < count(store, table) < before[table]
        assert delete_expired_traces(store, RetentionLimits(max_age_ns=DAY_NS // 2)) == 0


def test_expiry_records_last_start(tmp_path: Path) -> None:
    def read_last_start_ns(store: Store) -> int | None:
        with closing(store.cursor()) as cursor:
            ((last_ns,),) = cursor.execute("FROM expiry").fetchall()
        return None if last_ns is None else int(last_ns)

    with Store.open(tmp_path / "spans.duckdb") as store:
        append(store, 2)
        with closing(store.cursor()) as cursor:
            ((first_ns,),) = cursor.execute("SELECT max(start_ns) FROM spans WHERE span_key <= 512").fetchall()
        assert delete_expired_traces(store, RetentionLimits(max_age_ns=DAY_NS)) == 0
        assert read_last_start_ns(store) is None
        age(store, up_to_key=512, by_ns=DAY_NS - 60 * SECOND_NS)  # still later than the start times of the spans
        with closing(store.cursor()) as cursor:
            cursor.execute("UPDATE spans SET start_ns = start_ns - ?, end_ns = end_ns - ?", [DAY_NS, DAY_NS])
        assert delete_expired_traces(store, RetentionLimits(max_age_ns=DAY_NS // 2)) == 512
        assert read_last_start_ns(store) == first_ns - DAY_NS
    with Store.open(tmp_path / "spans.duckdb") as store:
        assert read_last_start_ns(store) == first_ns - DAY_NS
        # a clock that is far ahead must not affect all later windows
        with closing(store.cursor()) as cursor:
            cursor.execute("UPDATE spans SET start_ns = start_ns + ?, end_ns = end_ns + ?", [9 * DAY_NS, 9 * DAY_NS])
        time.sleep(0.01)
        assert delete_expired_traces(store, RetentionLimits(max_age_ns=1)) == 512
        assert first_ns - DAY_NS < (read_last_start_ns(store) or 0) < time.time_ns()


def test_store_works_after_everything_expired(tmp_path: Path, make_request) -> None:
    path = tmp_path / "spans.duckdb"
    with Store.open(path) as store:
        append(store, 1)
        derive_calls(store)
        time.sleep(0.01)
        assert delete_expired_traces(store, RetentionLimits(max_age_ns=1)) == 512
        assert [count(store, table) for table in ("spans", "resources", "scopes", *DERIVED_TABLES)] == [0] * 12
    for round_ in (1, 2):  # once after reopening, and once with resources stored and deleted by the same store
        with Store.open(path) as store:
            for _ in range(2):
                store.append(Decoder().decode([make_request(3).SerializeToString()]))
                assert derive_calls(store) == 1, round_
                assert (count(store), count(store, "resources")) == (3, 1)
                time.sleep(0.01)
                assert delete_expired_traces(store, RetentionLimits(max_age_ns=1)) == 3


def test_store_stays_below_size_limit_and_keeps_latest_traces(tmp_path: Path) -> None:
    limit = 24 * 2**20
    with Store.open(tmp_path / "spans.duckdb") as store:
        decoder = Decoder()
        requests = make_requests(512, templates=4)
        sizes = []
        for _ in range(40):
            store.append(decoder.decode(list(itertools.islice(requests, 16))))
            delete_expired_traces(store, RetentionLimits(max_bytes=limit))
            sizes.append(store.read_size_bytes())
        assert max(sizes) <= limit
        assert min(sizes[20:]) > limit // 2  # it is not emptied
        with closing(store.cursor()) as cursor:
            # requests interleave traces: the kept trace that ended first shows where deletion stopped
            ((first, last, spans, incomplete),) = cursor.execute(
                "WITH kept AS ("
                "  SELECT *, max(span_key) OVER w AS ended, count(*) OVER w AS n FROM spans"
                "  WINDOW w AS (PARTITION BY trace_id)"
                ") SELECT min(ended), max(span_key), count(*) FILTER (span_key >= (SELECT min(ended) FROM kept)),"
                " count(DISTINCT trace_id) FILTER (n <> 8) FROM kept"
            ).fetchall()
        assert last == 40 * 16 * 512
        assert last - first + 1 == spans
        assert incomplete == 0


def test_spans_arrive_during_deletion(tmp_path: Path) -> None:
    with Store.open(tmp_path / "spans.duckdb") as store:
        append(store, 16)
        age(store, up_to_key=16 * 512, by_ns=DAY_NS)
        done = threading.Event()
        appended: list[int] = []

        def keep_appending() -> None:
            while not done.is_set():
                append(store, 1, seed=2 + len(appended))
                appended.append(512)

        thread = threading.Thread(target=keep_appending)
        thread.start()
        try:
            deleted = delete_expired_traces(store, RetentionLimits(max_age_ns=DAY_NS // 2))
        finally:
            done.set()
            thread.join()
        assert deleted == 16 * 512
        assert 0 < sum(appended) == count(store)


def test_retention_thread_deletes_expired_traces() -> None:
    metrics = Metrics()
    with Store.open(telemetry=metrics) as store, Retention(store, RetentionLimits(max_age_ns=SECOND_NS // 5)):
        append(store, 1)
        wait_until(lambda: count(store) == 0, "all spans are deleted")
        assert metrics.registry.get_sample_value("spanproof_spans_forgotten_total", {"why": "age"}) == 512


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (RetentionLimits(), None),
        (RetentionLimits(max_age_ns=DAY_NS), 60),
        (RetentionLimits(max_age_ns=SECOND_NS), 0.1),
        (RetentionLimits(max_bytes=MIN_SIZE_BYTES), 5),
        (RetentionLimits(max_age_ns=SECOND_NS, max_bytes=MIN_SIZE_BYTES), 0.1),
    ],
)
def test_check_interval(limits: RetentionLimits, seconds: float | None) -> None:
    assert limits.check_interval_s == seconds
