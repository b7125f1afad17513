"""Requests of Grafana's Tempo data source to `spanproof serve` with stored spans.

The paths, parameters and headers are those in Grafana's source. The health check and the search of the query editor
come through Grafana's data source proxy, a trace from its backend, tags and their values from its resource handler.
The resource handler passes on all parameters, `tag` included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import MS, ZERO_NS, StoredSpan, append, make_request, span_id, trace_id
from spanproof.tests.command import FREE, FREE_PORTS, Running, find_address

SECONDS = ZERO_NS // 10**9
RANGE = f"start={SECONDS}&end={SECONDS + 3600}"
PROXIED = {"Accept": "application/json, text/plain, */*", "User-Agent": "Grafana/12.2.0", "X-Grafana-Org-Id": "1"}
BACKEND = {"Accept": "application/protobuf", "User-Agent": "Grafana/12.2.0", "Accept-Encoding": "gzip"}
SHOP = (
    StoredSpan("gateway", "POST /orders", 1, 1, ms=(0, 250), attributes={"http.response.status_code": 500}, error=True),
    StoredSpan("gateway", "POST", 1, 2, 1, "client", (10, 40), attributes={"retry": True, "share": 0.5}),
    StoredSpan("payments", "POST /pay", 1, 3, 2, ms=(11, 39), attributes={"http.response.status_code": 503, "a/b": "x"},
         resource={"service.version": "1.4.2"}, error=True),
    StoredSpan("stock", "count", 2, 4, kind="internal", ms=(1000, 1000), attributes={"http.response.status_code": 200}),
    StoredSpan("stock", "late", 3, 5, 9, "consumer", (2000, 2000.9), attributes={"tags": ["x", "y"]}),
)  # fmt: skip


@pytest.fixture(scope="module")
def grafana(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Yield a client that sends requests as Grafana does."""
    folder = tmp_path_factory.mktemp("tempo")
    with Store.open(folder / "spans.duckdb") as store:
        append(store, *SHOP)
    running = Running(("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb"), folder, {})
    try:
        api = find_address(running.read_line(), "API")
        with httpx.Client(base_url=f"http://{api}", headers=PROXIED, trust_env=False) as client:
            yield client
    finally:
        running.close()


def get(client: httpx.Client, path: str, **headers: str) -> dict:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def read_error(client: httpx.Client, path: str, status: int = 400) -> str:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8"), answer.text
    return answer.text


# ## Health check


def test_health_check_succeeds(grafana: httpx.Client) -> None:
    answer = grafana.get("/api/echo")
    assert (answer.status_code, answer.text) == (200, "echo")


def test_version_is_not_one_of_tempo(grafana: httpx.Client) -> None:
    # below every version with which Grafana uses streaming
    assert get(grafana, "/api/status/buildinfo")["version"].startswith("0.")


# ## Reading a trace


def test_trace_is_read_as_protobuf(grafana: httpx.Client) -> None:
    answer = grafana.get(f"/api/v2/traces/{trace_id(1)}", headers=BACKEND)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/protobuf")
    # TraceByIDResponse: the trace is field 1, the only field
    assert answer.content[0] == 0x0A
    size, at, shift = 0, 1, 0
    while True:
        byte = answer.content[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    assert size == len(answer.content) - at
    v2 = TracesData.FromString(answer.content[at:])
    v1 = TracesData.FromString(grafana.get(f"/api/traces/{trace_id(1)}?{RANGE}", headers=BACKEND).content)
    sent = make_request(*SHOP[:3])
    assert v1 == v2
    stored = {span.span_id: span for each in v2.resource_spans for scope in each.scope_spans for span in scope.spans}
    assert stored == {
        span.span_id: span for each in sent.resource_spans for scope in each.scope_spans for span in scope.spans
    }
    services = [each.resource.attributes[0].value.string_value for each in v2.resource_spans]
    assert services == ["gateway", "payments"]


def test_trace_is_read_as_json(grafana: httpx.Client) -> None:
    v2 = get(grafana, f"/api/v2/traces/{trace_id(2)}")["trace"]["resourceSpans"]
    assert v2 == get(grafana, f"/api/traces/{trace_id(2)}")["batches"]
    (span,) = v2[0]["scopeSpans"][0]["spans"]
    assert (span["traceId"], span["name"], span["startTimeUnixNano"]) == (
        trace_id(2),
        "count",
        str(ZERO_NS + 1000 * MS),
    )


@pytest.mark.parametrize("version", ["", "v2/"])
def test_unknown_trace_is_not_found(grafana: httpx.Client, version: str) -> None:
    path = f"/api/{version}traces"
    assert grafana.get(f"{path}/2", headers=BACKEND).status_code == 200  # ids may be written without leading zeros
    assert read_error(grafana, f"{path}/0", 404) == "trace not found: no span of 0 is stored"
    before = f"start={SECONDS - 3600}&end={SECONDS - 1}"
    assert read_error(grafana, f"{path}/{trace_id(1)}?{before}", 404).startswith("trace not found")
    assert grafana.get(f"{path}/{trace_id(1)}?{before.replace(str(SECONDS - 1), str(SECONDS))}").status_code == 200
    assert read_error(grafana, f"{path}/xyz").startswith("trace_id: ")
    assert read_error(grafana, f"{path}/{trace_id(1)}?q=%7B%7D") == "`q` is not a parameter; there are `start`, `end`"


# ## Search


def search(client: httpx.Client, query: str, **more: object) -> list[dict]:
    parameters = {"q": query, "limit": 20, "spss": 3, "start": SECONDS, "end": SECONDS + 3600} | more
    answer = client.get("/api/search", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["traces"]


def test_search_form_query_finds_traces_and_spans(grafana: httpx.Client) -> None:
    query = (
        '{resource.service.name="payments" && name="POST /pay" && span.http.response.status_code>=500 && status=error}'
    )
    assert search(grafana, query) == [
        {
            "traceID": trace_id(1),
            "rootServiceName": "gateway",
            "rootTraceName": "POST /orders",
            "startTimeUnixNano": str(ZERO_NS),
            "durationMs": 250,
            "spanSets": [
                {
                    "spans": [
                        {
                            "spanID": span_id(3),
                            "name": "POST /pay",
                            "startTimeUnixNano": str(ZERO_NS + 11 * MS),
                            "durationNanos": str(28 * MS),
                            "attributes": [
                                {"key": "service.name", "value": {"stringValue": "payments"}},
                                {"key": "http.response.status_code", "value": {"intValue": "503"}},
                            ],
                        }
                    ],
                    "matched": 1,
                }
            ],
        }
    ]


def test_search_is_newest_first_and_limited(grafana: httpx.Client) -> None:
    found = search(grafana, "{}")
    assert [int(trace["traceID"], 16) for trace in found] == [3, 2, 1]
    assert [trace["durationMs"] for trace in found] == [0, 0, 250]
    assert found[0]["rootServiceName"] == "<root span not yet received>"
    assert [trace["spanSets"][0]["matched"] for trace in found] == [1, 1, 3]
    assert len(search(grafana, "{}", limit=2)) == 2
    (spans,) = search(grafana, "{}", spss=2)[2]["spanSets"]
    assert ([span["spanID"] for span in spans["spans"]], spans["matched"]) == ([span_id(1), span_id(2)], 3)


def test_search_returns_queried_attributes(grafana: httpx.Client) -> None:
    (found,) = search(grafana, "{ .share > 0.1 && .retry = true && .missing = nil }")
    assert found["spanSets"][0]["spans"][0]["attributes"] == [
        {"key": "share", "value": {"doubleValue": 0.5}},
        {"key": "retry", "value": {"boolValue": True}},
    ]


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, [3, 2, 1]),
        ({"q": ""}, [3, 2, 1]),
        ({"q": '{ span."a\\nb\'{span_condition} -- $limit" != nil }'}, []),
        ({"tags": "service.name=PAY"}, [1]),
        ({"tags": 'name="post /"  http.response.status_code=50'}, [1]),
        ({"tags": " tags=y"}, [3]),
        ({"tags": 'service.name="sto.k"'}, []),  # not a regular expression
        ({"tags": "status.code=error service.name=stock"}, []),
        ({"minDuration": "1ms"}, [1]),
        ({"maxDuration": "0s"}, [2]),
        ({"q": "{ status = error }", "tags": "name=orders"}, [1]),
        ({"q": "{ status = unset }", "minDuration": "1ns", "maxDuration": "1h"}, [3, 1]),
        ({"start": SECONDS + 1, "end": SECONDS + 1}, [2]),  # both seconds included
        ({"start": SECONDS + 3}, []),
        ({"end": 2**33}, [3, 2, 1]),
        ({"end": 10**17}, [3, 2, 1]),
    ],
)
def test_search_by_tags_durations_and_times(grafana: httpx.Client, parameters: dict, found: list[int]) -> None:
    answer = grafana.get("/api/search", params=parameters)
    assert answer.status_code == 200, answer.text
    assert [int(trace["traceID"], 16) for trace in answer.json()["traces"]] == found


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("q=%7B+status+%3D+error+%7D+%7C+rate()", "TraceQL, line 1, column 20: `|`: only one set of spans, { … }, is"),
        ("tags=alone", "tags: column 1: tags are written key=value"),
        ("tags=a%3Db%22", "tags: column 1: tags are written key=value"),
        ("tags=a%3Db+status.code%3Dbad", "tags: status.code: `bad` is not one of unset, ok, error"),
        ("minDuration=250", "minDuration: `250` is not a duration such as 250ms or 1h30m"),
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=2&limit=3", "limit: given more than once"),
        ("start=now", "start: `now` is not a number"),
        ("mode=all", "`mode` is not a parameter; there are `start`, `end`, `q`, `tags`, `minDuration`, "),
    ],
)
def test_invalid_search_is_rejected_with_reason(grafana: httpx.Client, query: str, message: str) -> None:
    assert read_error(grafana, f"/api/search?{query}").startswith(message)


# ## Tags and values


def test_tags_are_listed_by_scope(grafana: httpx.Client) -> None:
    found = get(grafana, f"/api/v2/search/tags?limit=5000&{RANGE}")["scopes"]
    assert [scope["name"] for scope in found] == ["resource", "span", "intrinsic"]
    resource, span, intrinsic = (scope["tags"] for scope in found)
    assert resource == ["service.name", "service.version"]
    assert span == ["a/b", "http.response.status_code", "retry", "share", "tags"]
    assert {"name", "status", "duration", "trace:rootName"} <= set(intrinsic)
    assert get(grafana, "/api/v2/search/tags?scope=span&limit=1") == {"scopes": [{"name": "span", "tags": ["a/b"]}]}
    only = get(grafana, "/api/v2/search/tags?scope=span&q=%7Bresource.service.name%3D%22stock%22%7D")
    assert only["scopes"][0]["tags"] == ["http.response.status_code", "tags"]
    assert get(grafana, f"/api/v2/search/tags?scope=resource&end={SECONDS - 1}")["scopes"][0]["tags"] == []
    assert get(grafana, "/api/search/tags")["tagNames"] == sorted([*resource, *span])
    assert read_error(grafana, "/api/v2/search/tags?scope=event").startswith("scope: Input should be")


@pytest.mark.parametrize(
    ("tag", "query", "found"),
    [
        ("resource.service.name", "", [("string", "gateway"), ("string", "payments"), ("string", "stock")]),
        ("resource.service.name", '{name="count"}', [("string", "stock")]),
        (".http.response.status_code", "", [("int", "200"), ("int", "500"), ("int", "503")]),
        ("span.share", "", [("float", "0.5")]),
        ("span.retry", "{}", [("bool", "true")]),
        ("span.tags", "", [("string", "x"), ("string", "y")]),
        ("span.a%252Fb", "", [("string", "x")]),  # Grafana encodes it twice
        ("span.a%2Fb", "", [("string", "x")]),
        ("span.service.name", "", []),
        ("name", '{resource.service.name="gateway"}', [("string", "POST"), ("string", "POST /orders")]),
        ("rootName", "", [("string", "POST /orders"), ("string", "count")]),
        ("trace:rootService", '{name="POST /pay"}', [("string", "gateway")]),
        ("status", "", [("keyword", "unset"), ("keyword", "ok"), ("keyword", "error")]),
        ("duration", "", []),
        ("span:id", "", []),
        ("statusMessage", "", []),
    ],
)
def test_values_are_listed_with_their_types(
    grafana: httpx.Client, tag: str, query: str, found: list[tuple[str, str]]
) -> None:
    filtered = {"q": query} if query else {}
    # the resource handler passes on all parameters
    parameters = httpx.QueryParams({**filtered, "limit": 5000, "tag": tag})
    answer = get(grafana, f"/api/v2/search/tag/{tag}/values?{parameters}")
    assert [(each["type"], each["value"]) for each in answer["tagValues"]] == found


def test_values_are_listed_without_types_too(grafana: httpx.Client) -> None:
    for tag, values in (
        ("service.name", ["gateway", "payments", "stock"]),
        ("http.response.status_code", ["200", "500", "503"]),
        ("name", ["POST", "POST /orders", "POST /pay", "count", "late"]),
        ("status", ["error", "ok", "unset"]),
    ):
        assert get(grafana, f"/api/search/tag/{tag}/values") == {"tagValues": values}
    assert get(grafana, "/api/v2/search/tag/name/values?limit=1")["tagValues"] == [{"type": "string", "value": "POST"}]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("service.name/values", "tag name is not valid intrinsic or scoped attribute: service.name"),
        ("event.x/values", "tag name is not valid intrinsic or scoped attribute: event.x"),
        ("name/values?q=%7Bresource.cluster%3D%7D", "TraceQL, line 1, column 19: `}`: a text in quotes,"),
        ("name/values?limit=10001", "limit: Input should be less than or equal to 10000"),
    ],
)
def test_invalid_tag_request_is_rejected(grafana: httpx.Client, path: str, message: str) -> None:
    assert read_error(grafana, f"/api/v2/search/tag/{path}").startswith(message)


# ## Access


def test_token_of_grafana_is_accepted(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("for-grafana\n")
    line = start("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb", "--token-file", "tokens").read_line()
    api, headers = f"http://{find_address(line, 'API')}", {"Authorization": "Bearer for-grafana"}
    assert httpx.get(f"{api}/api/echo", trust_env=False).status_code == 401
    assert httpx.get(f"{api}/api/echo", headers=headers, trust_env=False).text == "echo"
    described = httpx.get(f"{api}/openapi.json", headers=headers, trust_env=False).json()["paths"]
    for path in ("/api/echo", "/api/v1/traces", "/api/v1/services"):
        assert "401" in described[path]["get"]["responses"], path


# ## Unfinished spans


def test_unfinished_spans_are_answered_as_received(client: httpx.Client, store: Store) -> None:
    append(store, StoredSpan("shop", "GET /", ms=(0, None), attributes={"share": float("nan")}))
    (batch,) = get(client, f"/api/traces/{trace_id(1)}?{RANGE}")["batches"]
    (span,) = batch["scopeSpans"][0]["spans"]
    assert "endTimeUnixNano" not in span
    assert span["attributes"] == [{"key": "share", "value": {"doubleValue": "NaN"}}]
    found = get(client, "/api/search?" + str(httpx.QueryParams(q='{ name = "GET /" || .share = 1 }')) + f"&{RANGE}")[
        "traces"
    ]
    assert [trace["durationMs"] for trace in found] == [0]
    assert [span["durationNanos"] for span in found[0]["spanSets"][0]["spans"]] == ["0"]
    assert get(client, f"/api/search?{httpx.QueryParams(q='{ duration > 1ns }')}&{RANGE}")["traces"] == []
    assert get(client, f"/api/v2/search/tag/span.share/values?{RANGE}")["tagValues"] == []
