"""Search and reading of stored traces over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import MS, ZERO_NS, StoredSpan, append, open_client, trace_id

# trace 1: an order that is paid at the second attempt; 2: a slow order; 3: another service; 4: without its root
SHOP = (
    StoredSpan("gateway", "POST /orders", trace=1, ms=(0, 100), attributes={"http.response.status_code": 200}),
    StoredSpan("gateway", "POST", 1, 2, 1, "client", (10, 40), error=True, attributes={"http.status_code": 503}),
    StoredSpan("payments", "POST /pay", 1, 3, 2, ms=(11, 39), error=True, resource={"service.version": "1.4.2"}),
    StoredSpan("payments", "POST /pay", 1, 4, 1, ms=(50, 90), attributes={"tags": ["a:b", "c"], "ok": True}),
    StoredSpan("gateway", "POST /orders", trace=2, ms=(1000, 1900), attributes={"http.response.status_code": 200}),
    StoredSpan("stock", "count", trace=3, kind="internal", ms=(2000, 2000)),
    StoredSpan("payments", "POST /pay", 4, 2, 9, ms=(3000, 3001), resource={"service.version": "1.4.3"}),
)


@pytest.fixture(scope="module")
def shop() -> Iterator[httpx.Client]:
    """Return a client of the API over an unchanging store."""
    with Store.open() as store:
        append(store, *SHOP)
        with open_client(store) as client:
            yield client


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open() as store:
        append(store, *SHOP)
        yield store


def search(client: httpx.Client, **parameters: str | int | list[str]) -> list[int]:
    """Return the numbers of the matching traces."""
    answer = client.get("/api/v1/traces", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.json()["next"] is None
    return [int(found["trace_id"], 16) for found in answer.json()["traces"]]


def test_traces_are_listed_newest_first(shop: httpx.Client) -> None:
    found = shop.get("/api/v1/traces").json()["traces"]
    assert [int(each["trace_id"], 16) for each in found] == [4, 3, 2, 1]
    assert found[3] == {
        "trace_id": trace_id(1),
        "root_service": "gateway",
        "root_name": "POST /orders",
        "orphan": False,
        "start_ns": ZERO_NS,
        "duration_ns": 100 * MS,
        "spans": 4,
        "services": ["gateway", "payments"],
        "errors": 2,
    }
    assert (found[0]["root_service"], found[0]["orphan"]) == ("payments", True)


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"service": "payments"}, [4, 1]),
        ({"service": "pay"}, []),
        ({"name": "POST /orders"}, [2, 1]),
        ({"service": "gateway", "name": "POST /pay"}, []),  # one span must match both
        ({"error": "true"}, [1]),
        ({"error": "true", "name": "POST /orders"}, []),
        ({"error": "false", "service": "payments"}, [4, 1]),
        ({"min_duration": "100ms"}, [2, 1]),
        ({"min_duration": "100.000001ms"}, [2]),
        ({"max_duration": "0ns"}, [3]),
        ({"min_duration": "1ms", "max_duration": "0.1s"}, [4, 1]),
        ({"since": "2026-01-31T12:00:01Z"}, [4, 3, 2]),
        ({"since": "2026-01-31T13:00:01+01:00", "until": "2026-01-31T12:00:03"}, [3, 2]),
        ({"until": "0001-01-01T00:00:00Z"}, []),
        ({"since": "9999-12-31T23:59:59Z"}, []),
        ({"attribute": "http.response.status_code:503"}, [1]),  # stored under its older name
        ({"attribute": "http.status_code:200"}, []),
        ({"attribute": "resource.service.version:1.4.3"}, [4]),
        ({"attribute": ["resource.service.version:1.4.2", "resource.service.name:payments"]}, [1]),
        ({"attribute": ["resource.service.version:1.4.2", "ok:true"]}, []),
        ({"attribute": ["tags:a:b", "span.tags:c", "ok:true"]}, [1]),
        ({"attribute": "tags:a"}, []),
        ({"attribute": "it's:"}, []),
        ({"attribute": "a\nb'{trace_condition} -- $limit:"}, []),
    ],
)
def test_filters(shop: httpx.Client, parameters: dict[str, str], found: list[int]) -> None:
    assert search(shop, **parameters) == found


def test_pages_are_stable_while_spans_arrive(client: httpx.Client, store: Store) -> None:
    append(store, *(StoredSpan("stock", "count", trace=100 + number, ms=(5000, 5001)) for number in range(5)))
    listed: list[int] = []
    page = client.get("/api/v1/traces", params={"limit": 2}).json()
    while True:
        listed += [int(found["trace_id"], 16) for found in page["traces"]]
        if page["next"] is None:
            break
        assert len(page["traces"]) == 2
        # a newer trace, an older trace, and spans that reorder a listed trace and an unlisted one
        late = 1000 + len(listed)
        append(
            store,
            StoredSpan("stock", "count", trace=late, ms=(9000, 9001)),
            StoredSpan("stock", "count", late + 50, ms=(1, 2)),
        )
        append(
            store, StoredSpan("stock", "early", 104, late, ms=(0, 1)), StoredSpan("stock", "early", 1, late, ms=(-9, 1))
        )
        page = client.get("/api/v1/traces", params={"limit": 2, "cursor": page["next"]}).json()
    assert listed == [104, 103, 102, 101, 100, 4, 3, 2, 1]
    assert search(client)[-1] == 1
    assert len(search(client)) == 9 + 2 * 4


def test_exactly_full_page_is_the_last(shop: httpx.Client) -> None:
    assert shop.get("/api/v1/traces", params={"limit": 4}).json()["next"] is None
    assert shop.get("/api/v1/traces", params={"limit": 3}).json()["next"] is not None


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("colour=red", "`colour` is not a parameter; there are `service`, `name`, "),
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=1001", "limit: Input should be less than or equal to 1000"),
        ("limit=many", "limit: `many` is not a number"),
        ("limit=%2B5", "limit: `+5` is not a number"),
        ("limit=5&limit=6", "limit: given more than once"),
        ("error=yes", "error: `yes` is neither true nor false"),
        ("min_duration=250", "min_duration: `250` is not a duration"),
        ("max_duration=-1s", "max_duration: `-1s` is negative"),
        ("since=yesterday", "since: `yesterday` is not an instant such as 2026-01-31T12:00:00Z (a + is written %2B"),
        ("since=2026-01-31T12:00:00+01:00", "since: `2026-01-31T12:00:00 01:00` is not an instant"),
        ("attribute=key", "attribute: 0: `key` is not key:value"),
        ("attribute=:value", "attribute: 0: `:value` is not key:value"),
        ("attribute=a%00:b", "attribute: 0: a key must not contain the character of code 0"),
        ("cursor=abc", "cursor: is not the `next` of an earlier response"),
        ("cursor=%00", "cursor: is not the `next` of an earlier response"),
        ("cursor=ö", "cursor: is not the `next` of an earlier response"),
    ],
)
def test_invalid_parameter_is_rejected_by_name(shop: httpx.Client, query: str, detail: str) -> None:
    answer = shop.get(f"/api/v1/traces?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["detail"].startswith(detail), answer.json()


def test_cursor_belongs_to_its_query(shop: httpx.Client) -> None:
    cursor = shop.get("/api/v1/traces", params={"limit": 1}).json()["next"]
    assert shop.get("/api/v1/traces", params={"limit": 2, "cursor": cursor}).status_code == 200
    answer = shop.get("/api/v1/traces", params={"limit": 1, "error": "true", "cursor": cursor})
    assert answer.json()["detail"] == "cursor: belongs to a query with other parameters"


@pytest.mark.parametrize("position", [[], [1, 2], [1, 2, "z" * 32], [2**70, 1, "0" * 32], [1.5, 1, "0" * 32], None, {}])
def test_forged_cursor_is_rejected(shop: httpx.Client, position: object) -> None:
    cursor = shop.get("/api/v1/traces", params={"limit": 1}).json()["next"]
    digest, _ = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    forged = base64.urlsafe_b64encode(json.dumps([digest, position]).encode()).decode().rstrip("=")
    assert shop.get("/api/v1/traces", params={"limit": 1, "cursor": forged}).status_code == 422


def test_etag_changes_with_trace(client: httpx.Client, store: Store) -> None:
    url = f"/api/v1/traces/{trace_id(1)}"
    first = client.get(url)
    tag = first.headers["etag"]
    assert tag.startswith('"')
    assert client.get(url.upper().replace("/API/V1/TRACES", "/api/v1/traces")).headers["etag"] == tag
    assert client.get(f"/api/v1/traces/{trace_id(2)}").headers["etag"] != tag
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = client.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(url, headers={"If-None-Match": '"other"'}).json() == first.json()
    append(store, StoredSpan("stock", "count", trace=2, id_=7))
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 304
    append(store, StoredSpan("stock", "count", trace=1, id_=7))
    changed = client.get(url, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert len(changed.json()["spans"]) == 5


def test_etags_of_stores_differ(shop: httpx.Client) -> None:
    with Store.open() as other:
        append(other, *SHOP)
        with open_client(other) as other_client:
            url = f"/api/v1/traces/{trace_id(1)}"
            assert shop.get(url).json() == other_client.get(url).json()
            assert shop.get(url).headers["etag"] != other_client.get(url).headers["etag"]


def test_unknown_trace_has_no_etag(shop: httpx.Client) -> None:
    assert shop.get(f"/api/v1/traces/{trace_id(9)}", headers={"If-None-Match": "*"}).status_code == 404


def test_trace_rejects_parameters(shop: httpx.Client) -> None:
    answer = shop.get(f"/api/v1/traces/{trace_id(1)}?depth=2")
    assert (answer.status_code, answer.json()["detail"]) == (422, "`depth` is not a parameter; there are none")


def test_exceeded_memory_limit_is_a_problem(client: httpx.Client, store: Store) -> None:
    append(store, *(StoredSpan("stock", "count", trace=number, id_=number) for number in range(10, 10_000)))
    with store.cursor() as cursor:
        cursor.execute("SET memory_limit = '4MB'")
        answer = client.get("/api/v1/traces")
        cursor.execute("SET memory_limit = '512MB'")
    assert (answer.status_code, answer.json()["title"]) == (503, "too much")
    assert len(client.get("/api/v1/traces").json()["traces"]) == 100
