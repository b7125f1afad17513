"""Queries over a server and over a file, in every format."""

import csv
import io
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from spanproof.assertions.explain.text_formatting import format_count
from spanproof.bench.spans import make_requests
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.retention import RetentionLimits, delete_expired_traces
from spanproof.query_lang.syntax.instants import format_instant
from spanproof.tests.api.stored_traces import StoredSpan, append, open_client
from spanproof.tests.command import Finished

BY_ROUTE = "count(gateway) by http.route over last 1h"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Return a store of complete traces."""
    path = tmp_path / "spans.duckdb"
    with Store.open(path) as store:
        decoder = Decoder()
        for body in itertools.islice(make_requests(512, templates=2), 2):
            store.append(decoder.decode([body]))
        store.cursor().execute("UPDATE spans SET arrived_ns = arrived_ns - 10_000_000_000")
    return path


@pytest.fixture
def client(db: Path) -> Iterator[httpx.Client]:
    with Store.open(db) as store, open_client(store) as client:
        yield client


@pytest.fixture
def ask(client: httpx.Client) -> Callable[..., httpx.Response]:
    return lambda query, accept="application/json": client.post(
        "/api/v1/query", json={"query": query}, headers={"accept": accept}
    )


def test_answer_in_every_format(ask: Callable[..., httpx.Response]) -> None:
    answer = ask(BY_ROUTE).json()
    assert (answer["unit"], answer["n"], answer["traces"]) == ("1", 128, 128)
    counts = {group["key"]["http.route"]: group["value"] for group in answer["groups"]}
    assert sum(counts.values()) == 128
    assert all(group["n"] == group["value"] for group in answer["groups"])

    as_csv = ask(BY_ROUTE, "text/csv")
    assert as_csv.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert {row["http.route"]: int(row["value"]) for row in rows} == counts

    arrow = pa.ipc.open_stream(ask(BY_ROUTE, "application/vnd.apache.arrow.stream").content).read_all()
    assert dict(zip(arrow["http.route"].to_pylist(), arrow["value"].to_pylist(), strict=True)) == counts
    assert arrow.schema.metadata[b"unit"] == b"1"


def test_answer_by_time_steps(ask: Callable[..., httpx.Response]) -> None:
    answer = ask("rate(gateway) over last 1h every 1m").json()
    assert answer["unit"] == "1/s"
    assert all(group["at_ns"] % 60_000_000_000 == 0 for group in answer["groups"])
    assert sum(group["value"] * 60 for group in answer["groups"]) == pytest.approx(128)


def test_answer_without_matches(ask: Callable[..., httpx.Response]) -> None:
    assert ask("p95(duration(nobody)) over last 1h").json()["groups"] == [
        {"key": {}, "at_ns": None, "n": 0, "value": None}
    ]
    answer = ask("p95(duration(nobody)) by name over last 1h").json()
    assert (answer["groups"], answer["hint"]) == (
        [],
        "`nobody` is not among the observed services: `gateway`, `orders`, `payments`, `stock`",
    )
    assert ask("count(gateway) over last 1h").json()["hint"] is None


def test_growing_traces_are_left_out_and_counted(db: Path, spanproof: Callable[..., Finished]) -> None:
    with Store.open(db) as store:
        store.cursor().execute(
            "UPDATE spans SET arrived_ns = $later WHERE trace_id = (SELECT min(trace_id) FROM spans)",
            {"later": time.time_ns() + 3600 * 10**9},
        )
    table = spanproof("query", "count(traces) over last 1h", "--db", db)
    assert re.fullmatch(
        r"of 127 traces(, \d+ of them incomplete)?; 1 trace not complete yet, left out", table.out.splitlines()[-1]
    )
    answer = json.loads(spanproof("query", "count(traces) over last 1h", "--db", db, "--format", "json").out)
    assert (answer["traces"], answer["growing"]) == (127, 1)


@pytest.mark.parametrize(
    ("value", "n", "unfinished"),
    [
        ("max(duration(shop))", 1, 2),
        ("max(duration(span shop))", 2, 3),
        ("max(duration(shop -> bank))", 1, 1),
        ("max(duration(traces))", 1, 2),
        ("count(shop)", 3, 0),
        ("error_rate(shop)", 3, 0),
        ("max(duration(shop)) by name", 1, 2),
    ],
)
def test_values_of_unfinished_spans_are_left_out_and_counted(
    tmp_path: Path, spanproof: Callable[..., Finished], value: str, n: int, unfinished: int
) -> None:
    path = tmp_path / "unfinished.duckdb"
    with Store.open(path) as store:
        append(store, StoredSpan("shop", "GET /"), StoredSpan("shop", "GET", 1, 2, 1, "client", ms=(1, 9)))
        append(store, StoredSpan("bank", "GET /rates", 1, 3, 2, ms=(2, 8)))
        for trace in (2, 3):
            append(store, StoredSpan("shop", "GET /", trace, ms=(0, None)))
        append(store, StoredSpan("shop", "GET", 3, 2, 1, "client", ms=(1, None)))
        append(store, StoredSpan("bank", "GET /rates", 3, 3, 2, ms=(2, 8)))
        store.cursor().execute("UPDATE spans SET arrived_ns = arrived_ns - 10_000_000_000")
    query = ("query", f'{value} since "2026-01-31T12:00:00Z"', "--db", path)
    answer = json.loads(spanproof(*query, "--format", "json").out)
    assert (answer["n"], answer["unfinished"]) == (n, unfinished)
    note = f"{format_count(unfinished, 'value')} left out, as spans have not ended" if unfinished else ""
    last = spanproof(*query).out.splitlines()[-1]
    assert last == (f"of 3 traces; {note}" if note else "of 3 traces")
    assert spanproof(*query, "--format", "csv").err == (f"spanproof: {note}\n" if note else "")


def test_invalid_query_is_a_problem_with_position(ask: Callable[..., httpx.Response]) -> None:
    refused = ask("duration(gateway)\n over last 1h")
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["detail"] == "1:1: this is many values, not one number"
    (diagnostic,) = problem["diagnostics"]
    assert {name: diagnostic[name] for name in ("id", "line", "column", "end_line", "end_column")} == {
        "id": "not-a-number", "line": 1, "column": 1, "end_line": 1, "end_column": 18,
    }  # fmt: skip
    assert ask(BY_ROUTE, "image/png").status_code == 406


def test_command_queries_file_and_server(db: Path, spanproof: Callable[..., Finished]) -> None:
    table = spanproof("query", BY_ROUTE, "--db", db)
    assert (table.code, table.err) == (0, "")
    lines = table.out.splitlines()
    assert lines[0].split() == ["http.route", "n", "value"]
    assert lines[-1].startswith("of 128 traces")
    with Store.open(db) as store, open_client(store) as client:
        answer = spanproof("query", BY_ROUTE, "--format", "json", "--server", client.base_url)
    assert sum(group["value"] for group in json.loads(answer.out)["groups"]) == 128


def test_answer_reports_expired_traces(db: Path, spanproof: Callable[..., Finished]) -> None:
    with Store.open(db) as store:
        assert delete_expired_traces(store, RetentionLimits(max_age_ns=1_000_000_000)) == 1024
        store.append(Decoder().decode([next(make_requests(512, templates=1))]))
        store.cursor().execute("UPDATE spans SET arrived_ns = arrived_ns - 10_000_000_000")
        with open_client(store) as client:
            before = client.post("/api/v1/query", json={"query": BY_ROUTE}).json()
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
            later = f'count(traces) between {json.dumps(now)} and "2100-01-01T00:00:00Z"'
            after = client.post("/api/v1/query", json={"query": later}).json()
    assert before["forgotten_until_ns"] > time.time_ns() - 3600 * 10**9
    assert after["forgotten_until_ns"] is None
    warning = f"traces of the window up to {format_instant(before['forgotten_until_ns'])} were deleted"
    assert spanproof("query", BY_ROUTE, "--db", db).out.endswith(f"; {warning}\n")
    as_csv = spanproof("query", BY_ROUTE, "--db", db, "--format", "csv")
    assert (as_csv.code, as_csv.err) == (0, f"spanproof: {warning}\n")
    assert warning not in as_csv.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("duration(gateway) over last 1h", "--db", "spans.duckdb"), 2, "error[not-a-number]"),
        ((BY_ROUTE, "--db", "nowhere.duckdb"), 2, "nowhere.duckdb: no such file"),
        ((BY_ROUTE, "--format", "xml"), 2, "--format is one of table, json, csv, arrow"),
        ((BY_ROUTE, "--server", "http://127.0.0.1:9"), 2, "no server answers at http://127.0.0.1:9"),
    ],
)
def test_command_rejects_invalid_arguments(
    spanproof: Callable[..., Finished], arguments: tuple[str, ...], code: int, message: str
) -> None:
    finished = spanproof("query", *arguments)
    assert finished.code == code
    assert message in finished.out + finished.err
