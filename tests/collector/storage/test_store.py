from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage import writer
from spanproof.collector.storage.store import ArrivedSpans, Store
from spanproof.collector.user_errors import StoreError
from spanproof.tests.collector.exported import export_request


def append(store: Store, *requests) -> None:
    store.append(Decoder().decode([request.SerializeToString() for request in requests]))


def fetch(store: Store, sql: str) -> list[tuple[object, ...]]:
    with store.cursor() as cursor:
        return cursor.execute(sql).fetchall()


def test_span_keys_continue_after_reopening(tmp_path: Path, make_request) -> None:
    path = tmp_path / "spans.duckdb"
    for _ in range(2):
        with Store.open(path) as store:
            append(store, make_request(2))
    with Store.open(path) as store:
        assert fetch(store, "SELECT span_key FROM spans ORDER BY span_key") == [(1,), (2,), (3,), (4,)]
        assert fetch(store, "SELECT count(DISTINCT arrived_ns) FROM spans") == [(2,)]
        # known resources and scopes are not stored again
        assert fetch(store, "SELECT (SELECT count(*) FROM resources), (SELECT count(*) FROM scopes)") == [(1, 1)]


def test_ids_are_stored_unchanged(store: Store, make_request) -> None:
    append(store, make_request(trace_id=bytes.fromhex("f4bf92f3577b34da63ce929d0e0e4736")))
    assert fetch(store, "SELECT trace_id::VARCHAR, span_id FROM spans") == [("f4bf92f3-577b-34da-63ce-929d0e0e4736", 1)]


def test_listener_receives_commits_until_unsubscribed(store: Store, make_request) -> None:
    commits: list[ArrivedSpans] = []

    def listen(arrived: ArrivedSpans) -> None:
        assert fetch(store, "SELECT count(*) FROM spans") == [(5 * (len(commits) + 1),)]
        commits.append(arrived)

    unsubscribe = store.subscribe(listen)
    append(store, make_request(2, trace_id=b"\x0a" * 16), make_request(3, trace_id=b"\xff" * 16))
    append(store, make_request(5))
    append(store)
    unsubscribe()
    unsubscribe()
    append(store, make_request())
    assert [each.trace_ids for each in commits] == [{"0a" * 16, "ff" * 16}, {"01" * 16}]
    assert [each.services for each in commits] == [store.services] * 2


def test_failing_listener_does_not_undo_commit(store: Store, make_request, caplog) -> None:
    commits: list[ArrivedSpans] = []
    store.subscribe(lambda _arrived: 1 / 0)
    store.subscribe(commits.append)
    append(store, make_request())
    assert fetch(store, "SELECT count(*) FROM spans") == [(1,)]
    assert len(commits) == 1
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.ERROR, "a listener of the store failed")
    ]


def test_failed_append_is_rolled_back(store: Store, make_request) -> None:
    decoded = Decoder().decode([make_request(2).SerializeToString()])
    fetch(store, "ALTER TABLE spans RENAME TO hidden")
    with pytest.raises(StoreError, match="the spans could not be stored: Catalog Error"):
        store.append(decoded)
    assert fetch(store, "SELECT count(*) FROM resources") == [(0,)]
    fetch(store, "ALTER TABLE hidden RENAME TO spans")
    store.append(decoded)
    assert fetch(store, "SELECT span_key FROM spans") == [(1,), (2,)]
    assert len(export_request(store, "01" * 16).resource_spans) == 1


def test_file_in_use_names_process(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StoreError) as error:
            Store.open(path)
        holder.communicate(b"\n")
    assert str(error.value) == f"{path} is in use by process {holder.pid}; stop it or name another file"


def test_foreign_database_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE spans (id INTEGER)")
    with pytest.raises(StoreError, match="is a DuckDB database, but not a spanproof store; name another file"):
        Store.open(path)


def test_file_without_database_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 1000)
    with pytest.raises(StoreError, match=r"notes\.txt is not a DuckDB database; name another file"):
        Store.open(path)
    with pytest.raises(StoreError, match=r"spans\.duckdb cannot be opened: .*No such file or directory"):
        Store.open(tmp_path / "missing" / "spans.duckdb")


def test_settings_reach_duckdb() -> None:
    with Store.open(settings={"threads": "1"}) as store:
        assert fetch(store, "SELECT current_setting('threads')") == [(1,)]


def test_file_cache_is_evicted_periodically(tmp_path: Path, make_request, monkeypatch) -> None:
    monkeypatch.setattr(writer, "_CACHE_EVICTION_INTERVAL_SPANS", 20_000)
    cached = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'BASE_TABLE'"
    limit = "SELECT current_setting('memory_limit')"
    with Store.open(tmp_path / "spans.duckdb", settings={"memory_limit": "300MB"}) as store:
        before = fetch(store, limit)
        append(store, make_request(10_000))
        assert fetch(store, cached) > [(0,)]
        with store.cursor() as reader:
            reader.execute("FROM spans ORDER BY span_key")
            assert len(reader.fetchmany(10)) == 10
            append(store, make_request(10_000))
            assert fetch(store, cached) == [(0,)]
            assert len(reader.fetchall()) == 9_990
        append(store, make_request(10_000))
        assert fetch(store, cached) > [(0,)]
        assert fetch(store, limit) == before


def test_closed_store_raises_error(make_request) -> None:
    store = Store.open()
    store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        store.cursor()
    with pytest.raises(StoreError, match="the spans could not be stored"):
        append(store, make_request())
