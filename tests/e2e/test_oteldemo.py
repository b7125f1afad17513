"""The OpenTelemetry demo's first thirty seconds: received, derived and judged, and compared with independent counts."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import httpx
import pytest

from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.tests.command import FREE

RECORDING = Path(__file__).parents[1] / "traces" / "oteldemo" / "test_data.json.gz"
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
EXIT, SERVED = (CLIENT, PRODUCER), (SERVER, CONSUMER)

# ## Independent counts: the definitions of the language's second chapter, applied to the recorded JSON


@dataclass(frozen=True, eq=False)
class Span:
    """A span of the recorded JSON."""

    trace: str
    id: str
    parent_id: str
    service: str
    name: str
    kind: int
    start: int
    end: int
    status: int
    attributes: dict[str, object]

    def first(self, *names: str) -> object:
        return next((self.attributes[name] for name in names if name in self.attributes), None)


def read_lines() -> list[bytes]:
    lines = gzip.decompress(RECORDING.read_bytes()).splitlines()
    return [line for line in lines if line.startswith(b'{"resourceSpans"')]


def read_values(pairs: list[dict]) -> dict[str, object]:
    return {pair["key"]: next(iter(pair["value"].values()), None) for pair in pairs}


@cache
def spans() -> tuple[Span, ...]:
    return tuple(
        Span(
            span["traceId"], span["spanId"], span.get("parentSpanId", ""),
            str(read_values(resource_spans["resource"]["attributes"])["service.name"]), span["name"], span["kind"],
            int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"]), span.get("status", {}).get("code", 0),
            read_values(span.get("attributes", [])),
        )
        for line in read_lines()
        for resource_spans in json.loads(line)["resourceSpans"]
        for scope_spans in resource_spans["scopeSpans"]
        for span in scope_spans["spans"]
    )  # fmt: skip


@cache
def by_id() -> dict[tuple[str, str], Span]:
    return {(span.trace, span.id): span for span in spans()}


def parent(span: Span) -> Span | None:
    return by_id().get((span.trace, span.parent_id))


def children(span: Span) -> list[Span]:
    return _children()[span.trace, span.id]


@cache
def _children() -> dict[tuple[str, str], list[Span]]:
    spans_by_parent = defaultdict(list)
    for span in spans():
        spans_by_parent[span.trace, span.parent_id].append(span)
    return spans_by_parent


def is_entry(span: Span) -> bool:
    """Return whether a span is the entry of a request into its service."""
    above = parent(span)
    if above is None:
        return not span.parent_id or span.kind in SERVED
    if above.service != span.service:
        return True
    if span.kind not in SERVED:
        return False
    while above is not None and above.service == span.service:
        if above.kind in SERVED:
            return False
        if above.kind in EXIT:
            return True
        above = parent(above)
    return True


def peer(span: Span) -> str:
    """Return the callee of a client span without a server span."""
    for names in (
        ("service.peer.name", "peer.service"),
        ("db.system.name", "db.system"),
        ("messaging.system",),
    ):
        if name := span.first(*names):
            return str(name)
    url = str(span.first("url.full", "http.url") or "")
    address = str(span.first("server.address", "net.peer.name", "net.host.name") or urlsplit(url).hostname or "")
    label = address.split(".")[0]
    return label if label in {each.service for each in spans()} else address or "unknown"


def count_attempts() -> Counter[tuple[str, str, str]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for span in spans():
        above = parent(span)
        if span.kind in EXIT and not is_wrapper(span):
            # a wrapper span may pass on its own context instead of that of the span inside it
            around = [above] if above is not None and is_wrapper(above) else []
            served = [child for each in (span, *around) for child in children(each) if child.kind == SERVER]
            counts.update(("paired", span.service, child.service) for child in served)
            if not served:
                counts["unpaired", span.service, peer(span)] += 1
        if is_entry(span) and above is not None and above.kind not in EXIT and above.service != span.service:
            counts["bare", above.service, span.service] += 1
    return counts


def is_wrapper(span: Span) -> bool:
    """Return whether a client span is around another one of its own service."""
    return span.kind in EXIT and any(child.kind in EXIT and child.service == span.service for child in children(span))


def is_failed(span: Span) -> bool:
    http = span.first("http.response.status_code", "http.status_code")
    rpc = span.first("rpc.response.status_code", "rpc.grpc.status_code")
    return span.status == 2 or int(str(http or 0)) >= 500 or str(rpc or 0) not in ("0", "OK")


# ## The recording, received over HTTP and judged


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with Store.open() as store:
        with (
            Receiver(store, FREE, FREE) as receiver,
            httpx.Client(headers={"content-type": "application/json"}, trust_env=False) as client,
        ):
            for line in read_lines():
                answer = client.post(f"http://{receiver.http_address}/v1/traces", content=line)
                assert (answer.status_code, answer.json()) == (200, {})
        assert derive_calls(store) == 141
        with store.cursor() as connection:
            yield connection


@pytest.fixture(scope="module")
def judge(connection: duckdb.DuckDBPyConnection) -> Callable[[str], Verdict]:
    judge = Judge(connection)
    judge.select_traces(SelectedTraces(dict.fromkeys(sorted({span.trace for span in spans()}), True)))

    def decide(claim: str) -> Verdict:
        parsed = parse_claim(claim)
        assert check_claim(parsed) == ()
        assert parsed.expectation is not None
        return judge.judge(parsed.expectation, claim, Bindings())

    return decide


def witnesses(verdict: Verdict) -> list[Span]:
    return [by_id()[witness.trace_id, witness.span_id] for witness in verdict.witnesses]


def test_recording_has_expected_size() -> None:
    assert (len(spans()), len(by_id()), len({span.trace for span in spans()})) == (547, 547, 141)


def test_entry_spans_match_the_definition(connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute(
        "SELECT s.trace_id, s.span_id FROM topology t JOIN spans s USING (span_key) WHERE t.is_entry"
    ).fetchall()
    entries = {(trace.hex, f"{span:016x}") for trace, span in rows}
    assert entries == {(span.trace, span.id) for span in spans() if is_entry(span)}


def test_attempts_match_independent_count(connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute("SELECT shape, caller, callee, count(*) FROM attempts GROUP BY ALL").fetchall()
    assert {(shape, caller, callee): n for shape, caller, callee, n in rows} == dict(count_attempts())


def test_errors_match_independent_count(connection: duckdb.DuckDBPyConnection) -> None:
    rows = connection.execute(
        "SELECT s.service, count(*) FROM topology t JOIN spans s USING (span_key) WHERE t.error GROUP BY 1"
    )
    assert dict(rows.fetchall()) == Counter(span.service for span in spans() if is_failed(span))


def test_only_failed_attempts_are_retried(connection: duckdb.DuckDBPyConnection) -> None:
    """In each logical call, all attempts have the same parent and callee, and all but the last have failed."""
    rows = connection.execute(
        "SELECT e.call_key, s.trace_id, s.span_id FROM attempts e JOIN spans s ON s.span_key = e.client_key"
        " WHERE e.call_key IN (SELECT call_key FROM calls WHERE attempts > 1) ORDER BY e.call_key, e.attempt"
    ).fetchall()
    attempts = defaultdict(list)
    for call, trace, span in rows:
        attempts[call].append(by_id()[trace.hex, f"{span:016x}"])
    for of_call in attempts.values():
        assert len({(span.trace, span.parent_id, span.service, span.name) for span in of_call}) == 1
        assert all(is_failed(span) for span in of_call[:-1])
        assert all(one.end <= other.start for one, other in pairwise(of_call))


def list_paths() -> Iterator[tuple[str, str]]:
    """Yield for each span its trace and the path of services from the first one to that of the span."""
    for span in spans():
        services = [span.service]
        if span.kind in EXIT and not any(child.kind in SERVED for child in children(span)):
            services.insert(0, peer(span))
        above = parent(span)
        while above is not None:
            if services[-1] != above.service:
                services.append(above.service)
            above = parent(above)
        yield span.trace, " -> ".join(reversed(services))


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("loadgenerator -> frontend-proxy -> frontend", "loadgenerator -> frontend-proxy -> frontend$"),
        ("frontend -> productcatalogservice", "frontend -> productcatalogservice$"),
        ("frontend ->> productcatalogservice", "frontend -> (.* -> )?productcatalogservice$"),
        ("frontend -> recommendationservice -> flagd", "frontend -> recommendationservice -> flagd$"),
        ("frontend ->> flagd", "frontend -> (.* -> )?flagd$"),
        ("frontend -> checkoutservice", "frontend -> checkoutservice$"),
    ],
)
def test_path_matches_independent_count(judge: Callable[[str], Verdict], path: str, pattern: str) -> None:
    matching = {trace for trace, services in list_paths() if re.search(rf"(^| -> ){pattern}", services)}
    if path.startswith("frontend"):  # calls in a linked trace also belong to the trace of the request that it continues
        matching |= {before for after, before in read_links() if after in matching}
    assert 0.01 < len(matching) / 141 < 1
    some = judge(f"path {path} in >= 1% of traces")
    assert (some.outcome, some.n) == (Outcome.PASS, 141), some
    assert f"in {len(matching)} of 141 traces" in some.reason
    every = judge(f"path {path}")
    assert (every.outcome, every.n) == (Outcome.FAIL, 141), every
    assert judge(f"no path {path}").outcome is Outcome.FAIL


def read_links() -> Iterator[tuple[str, str]]:
    """Yield each trace whose root is a server span, with each trace that this span links to."""
    for line in read_lines():
        for resource in json.loads(line)["resourceSpans"]:
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                if span.get("kind") == SERVER and not span.get("parentSpanId"):
                    yield from ((span["traceId"], link["traceId"]) for link in span.get("links", ()))


def test_path_follows_links_to_other_traces(judge: Callable[[str], Verdict]) -> None:
    """The frontend continues in a new trace, whose root span links to the trace of the proxy's request."""
    services = defaultdict(set)
    for span in spans():
        services[span.trace].add(span.service)
    assert not any({"loadgenerator", "productcatalogservice"} <= names for names in services.values())
    matching = {
        before
        for after, before in read_links()
        if "productcatalogservice" in services[after] and "loadgenerator" in services[before]
    }
    path = "path loadgenerator -> frontend-proxy -> frontend ->> productcatalogservice"
    some = judge(f"{path} in >= 1% of traces")
    assert (some.outcome, some.n) == (Outcome.PASS, 141), some
    assert f"in {len(matching)} of 141 traces" in some.reason
    assert judge(path).outcome is Outcome.FAIL


def test_failed_calls_are_found_as_witnesses(judge: Callable[[str], Verdict]) -> None:
    failed = [
        span for span in spans() if span.service == "frontend" and span.kind == CLIENT and
        (peer(span) == "checkoutservice" or any(child.service == "checkoutservice" for child in children(span)))
    ]  # fmt: skip
    assert failed
    assert {str(span.attributes["rpc.grpc.status_code"]) for span in failed} == {"13"}

    rate = judge("error_rate(frontend -> checkoutservice) == 100%")
    assert rate.outcome is Outcome.PASS, rate
    assert rate.n == judge("count(frontend -> checkoutservice) >= 0").n
    every = judge("every try frontend -> checkoutservice has rpc.grpc.status_code == 13")
    assert (every.outcome, every.n) == (Outcome.PASS, len(failed)), every
    calls = judge("every frontend -> checkoutservice has rpc.grpc.status_code == 13")
    assert calls.outcome is Outcome.PASS, calls
    assert set(witnesses(judge("no frontend -> checkoutservice has error"))) <= set(failed)
    wrong = judge("every try frontend -> checkoutservice has rpc.grpc.status_code == 0")
    assert wrong.outcome is Outcome.FAIL, wrong
    assert witnesses(wrong)
    assert set(witnesses(wrong)) <= set(failed)


@pytest.mark.parametrize(
    ("stable", "deprecated"),
    [
        ("http.response.status_code", ("http.status_code",)),
        ("http.request.method", ("http.method",)),
        ("server.address", ("net.peer.name", "net.host.name")),
        ("rpc.response.status_code", ("rpc.grpc.status_code",)),
        ("rpc.system.name", ("rpc.system",)),
        ("url.full", ("http.url",)),
    ],
)
def test_stable_name_reads_deprecated_names(
    judge: Callable[[str], Verdict], stable: str, deprecated: tuple[str, ...]
) -> None:
    matching = [span for span in spans() if span.first(stable, *deprecated) is not None]
    assert judge(f"count(span[exists({stable})]) == {len(matching)}").outcome is Outcome.PASS
    values = Counter(str(span.first(stable, *deprecated)) for span in matching)
    for value, n in values.most_common(3):
        assert judge(f'count(span[{stable} == "{value}"]) == {n}').outcome is Outcome.PASS, value


@pytest.mark.parametrize("name", ["http.status_code", "net.peer.name", "rpc.grpc.status_code"])
def test_deprecated_name_reads_itself(judge: Callable[[str], Verdict], name: str) -> None:
    matching = sum(name in span.attributes for span in spans())
    assert matching
    assert judge(f"count(span[exists({name})]) == {matching}").outcome is Outcome.PASS


def test_status_compares_as_a_number(judge: Callable[[str], Verdict]) -> None:
    statuses = [span.first("http.response.status_code", "http.status_code") for span in spans()]
    failed = sum(status is not None and int(str(status)) >= 500 for status in statuses)
    assert failed
    assert judge(f"count(span[http.response.status_code >= 500]) == {failed}").outcome is Outcome.PASS


def test_redirect_is_not_a_retry(judge: Callable[[str], Verdict], connection: duckdb.DuckDBPyConnection) -> None:
    redirected = [
        span for span in spans() if span.kind == CLIENT
        and any(str(child.first("http.status_code", "http.response.status_code")) == "308" for child in children(span))
    ]  # fmt: skip
    assert redirected
    attempts = connection.execute(
        "SELECT DISTINCT c.attempts FROM calls c JOIN spans s ON s.span_key = c.client_key"
        " WHERE format('{:016x}', s.span_id) IN (SELECT unnest($ids))",
        {"ids": [span.id for span in redirected]},
    ).fetchall()
    assert attempts == [(1,)]
    for caller, callee in {(span.service, child.service) for span in redirected for child in children(span)}:
        # some calls of this client are not answered, and it is known to retry below its spans
        verdict = judge(f"no retry {caller} -> {callee}")
        if verdict.outcome is not Outcome.PASS:
            assert verdict.outcome is Outcome.INCONCLUSIVE
            assert "visible only at the callee" in verdict.reason
