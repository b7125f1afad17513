"""Services and the service graph over HTTP."""

from __future__ import annotations

import time

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import MS, ZERO_NS, StoredSpan, append, trace_id

# requests of 1 ms to 20 ms, each with a call to `bank` that takes half as long; the last three fail there
TRACES = tuple(
    StoredSpan(service, name, number, id_, parent, kind, (0, number / share), error=number > failing, resource=resource)
    for number in range(1, 21)
    for service, name, id_, parent, kind, share, failing, resource in (
        ("shop", "GET /", 1, 0, "server", 1, 20, {"service.version": f"1.{number % 2}"}),
        ("shop", "GET", 2, 1, "client", 2, 17, {"service.version": f"1.{number % 2}"}),
        ("bank", "GET /rates", 3, 2, "server", 4, 17, {}),
    )
)
WINDOW = {"since": "2026-01-31T12:00:00Z", "until": "2026-01-31T12:00:01Z"}


def get(client: httpx.Client, path: str, **parameters: str | int) -> dict:
    answer = client.get(f"/api/v1/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_services_list_requests_and_versions(client: httpx.Client, store: Store) -> None:
    append(store, *TRACES, StoredSpan("idle", "poll", 99, 5, 4, "client"))
    answer = get(client, "services", **WINDOW)
    assert (answer["since_ns"], answer["until_ns"]) == (ZERO_NS, ZERO_NS + 1000 * MS)
    assert answer["services"] == [
        {
            "service": "bank",
            "versions": [],
            "requests": 20,
            "errors": 3,
            "error_rate": 0.15,
            "duration_ns": {"n": 20, "p50": 2_500_000, "p95": 4_750_000, "p99": 5_000_000},
        },
        # the parent of its span is not stored, so it is unknown whether the span is a request
        {"service": "idle", "versions": [], "requests": 0, "errors": 0, "error_rate": None, "duration_ns": None},
        {
            "service": "shop",
            "versions": ["1.0", "1.1"],
            "requests": 20,
            "errors": 0,
            "error_rate": 0.0,
            "duration_ns": {"n": 20, "p50": 10 * MS, "p95": 19 * MS, "p99": 20 * MS},
        },
    ]


def test_graph_counts_calls_and_attempts(client: httpx.Client, store: Store) -> None:
    attempt = {"http.request.method": "GET", "server.address": "bank", "server.port": 80}
    append(
        store, *TRACES,
        StoredSpan("till", "GET /", 50, 1, ms=(0, 30)),
        StoredSpan("till", "GET", 50, 2, 1, "client", (1, 5), True, attempt | {"http.response.status_code": 503}),
        StoredSpan("till", "GET", 50, 3, 1, "client", (6, 9), True,
             attempt | {"http.response.status_code": 503, "http.request.resend_count": 1}),
        StoredSpan("till", "GET", 50, 4, 1, "client", (10, 20), False,
             attempt | {"http.response.status_code": 200, "http.request.resend_count": 2}),
    )  # fmt: skip
    shop, till = get(client, "calls", **WINDOW)["calls"]
    assert shop == {
        "caller": "shop", "callee": "bank", "operation": "GET /rates", "protocol": "other", "count": 20,
        "attempts": 20, "errors": 3, "failed": 3,
        "duration_ns": {"n": 20, "p50": 5 * MS, "p95": 9_500_000, "p99": 10 * MS},
    }  # fmt: skip
    assert (till["caller"], till["callee"], till["protocol"]) == ("till", "bank", "http")
    assert (till["count"], till["attempts"], till["errors"], till["failed"]) == (1, 3, 2, 0)
    assert till["duration_ns"] == {"n": 1, "p50": 19 * MS, "p95": 19 * MS, "p99": 19 * MS}


def test_graph_pages_share_one_window(client: httpx.Client, store: Store) -> None:
    now = (time.time_ns() - ZERO_NS) / MS - 1000
    calls = [
        span
        for number, name in enumerate("abcde", 1)
        for span in (
            StoredSpan(name, "go", number, ms=(now, now + 9)),
            StoredSpan("z", "go", number, 2, 1, ms=(now, now + 9)),
        )
    ]
    append(store, *calls)
    names, windows, parameters = [], set(), {"limit": 2, "last": "1m"}
    while True:
        page = get(client, "calls", **parameters)
        names += [call["caller"] for call in page["calls"]]
        windows.add((page["since_ns"], page["until_ns"]))
        if page["next"] is None:
            break
        parameters["cursor"] = page["next"]
    assert names == ["a", "b", "c", "d", "e"]
    assert len(windows) == 1
    answer = client.get("/api/v1/calls", params=parameters | {"last": "2m"})
    assert (answer.status_code, answer.json()["detail"][:7]) == (422, "cursor:")


@pytest.mark.parametrize("path", ["services", "calls"])
def test_default_window_is_the_last_hour(client: httpx.Client, store: Store, path: str) -> None:
    now = (time.time_ns() - ZERO_NS) / MS
    for number, minutes in enumerate((1, 50, 70), 1):
        at = (now - minutes * 60_000, now - minutes * 60_000 + 1)
        append(store, StoredSpan(f"s{minutes}", "go", number, ms=at), StoredSpan("z", "go", number, 2, 1, ms=at))
    key = {"services": "service", "calls": "caller"}[path]

    def list_names(**parameters: str) -> list[str]:
        return [each[key] for each in get(client, path, **parameters)[path] if each[key] != "z"]

    assert list_names() == ["s1", "s50"]
    assert list_names(last="15m") == ["s1"]
    assert list_names(last="2h") == ["s1", "s50", "s70"]
    assert list_names(until="2100-01-01T00:00:00Z") == ["s1", "s50", "s70"]
    assert list_names(since="2100-01-01T00:00:00Z") == []


@pytest.mark.parametrize("path", ["services", "calls"])
@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("last=soon", "last: `soon` is not a duration"),
        ("last=1h&since=2026-01-31T12:00:00Z", "last: cannot be combined with since and until"),
        ("since=2026-01-31T12:00:00Z&until=2026-01-31T11:00:00Z", "until: is before since"),
        ("service=shop", "`service` is not a parameter; there are `last`, `since`, `until`{more}"),
        ("last=1h&last=2h", "last: given more than once"),
    ],
)
def test_invalid_parameter_is_rejected_by_name(client: httpx.Client, path: str, query: str, detail: str) -> None:
    answer = client.get(f"/api/v1/{path}?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["detail"] == detail.replace("{more}", ", `limit`, `cursor`" if path == "calls" else "")


def test_unfinished_requests_have_no_duration(client: httpx.Client, store: Store) -> None:
    append(store, StoredSpan("shop", "GET /"), StoredSpan("shop", "GET /", 2, 2, ms=(0, None)))
    append(store, StoredSpan("idle", "poll", 3, 3, ms=(0, None)))
    idle, shop = get(client, "services", **WINDOW)["services"]
    assert (idle["requests"], idle["duration_ns"]) == (1, None)
    quantiles = {"n": 1, "p50": 10 * MS, "p95": 10 * MS, "p99": 10 * MS}
    assert (shop["requests"], shop["duration_ns"]) == (2, quantiles)
    traces = get(client, "traces", **WINDOW)["traces"]
    assert sorted(trace["duration_ns"] for trace in traces) == [0, 0, 10 * MS]
    (span,) = get(client, f"traces/{trace_id(3)}")["spans"]
    assert span["duration_ns"] is None
