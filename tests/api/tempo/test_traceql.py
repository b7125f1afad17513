"""TraceQL queries: matching spans, and rejection of invalid queries."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from spanproof.api.tempo.traceql import TraceQLError, compile_traceql, read_go_duration_ns
from spanproof.api.tempo.traceql_fields import TraceqlAttribute
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.store import Store
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.tests.api.stored_traces import StoredSpan, append, span_id, trace_id

SPANS = (
    StoredSpan("shop", "GET /", 1, 1, ms=(0, 200), attributes={"http.status_code": 200, "region": "eu"}),
    StoredSpan("shop", "GET", 1, 2, 1, "client", (10, 150), error=True, attributes={"tags": ["a", "b"], "ok": True}),
    StoredSpan("bank", "GET /rates", 1, 3, 2, ms=(20, 140), error=True,
         attributes={"http.status_code": 500, "share": 0.5}, resource={"region": "us", "service.version": "1.4"}),
    StoredSpan("bank", 'say "hi"', 2, 4, kind="internal", ms=(0, 1),
         attributes={"a b": "x", "region": "ap", "line": "1\n2"}, resource={"region": "us"}),
    StoredSpan("lost", "late", 3, 5, 9, ms=(0, 3000)),
)  # fmt: skip


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with Store.open() as store:
        append(store, *SPANS)
        derive_calls(store)
        with store.cursor() as cursor:
            yield cursor


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("{}", [1, 2, 3, 4, 5]),
        ("{ true }", [1, 2, 3, 4, 5]),
        ("{ false }", []),
        ('{ resource.service.name = "shop" }', [1, 2]),
        ('{resource.service.name="bank" && name="GET /rates" && duration>100ms && status=error}', [3]),
        ("{ span.http.status_code >= 500 }", [3]),
        ("{ span.http.response.status_code = 200 }", [1]),  # stored under its older name
        ("{ .http.status_code != 200 }", [3]),
        ("{ span.http.status_code < 500 && span.http.status_code > 2e2 || span.share = 0.5 }", [3]),
        ('{ .region = "us" }', [3]),  # a span's attribute precedes that of its resource
        ('{ resource.region = "us" }', [3, 4]),
        ('{ .region != "us" }', [1, 4]),
        ("{ .region = nil }", [2, 5]),
        ("{ span.region != nil }", [1, 4]),
        ("{ resource.region = nil }", [1, 2, 5]),
        ('{ .tags = "b" }', [2]),
        ("{ span.ok = true }", [2]),
        ("{ span.ok = false }", []),
        ('{ name =~ "GET" }', [2]),  # matches the whole text
        ('{ name =~ "GET.*|late" }', [1, 2, 3, 5]),
        ('{ name !~ "GET.*" }', [4, 5]),
        ('{ span.line =~ "1.2" }', []),
        ("{ name = `say \"hi\"` }", [4]),
        (r'{ name = "say \"hi\"" }', [4]),
        (r'{ name = "\x47\u0045\U00000054" }', [2]),
        ('{ span."a b" = "x" }', [4]),
        ("{ kind = client }", [2]),
        ("{ kind != server && status != error }", [4]),
        ("{ status = unset }", [1, 4, 5]),
        ("{ duration <= 1ms }", [4]),
        ("{ duration = 0.2s }", [1]),
        ("{ duration > 1m30s }", []),
        ("{ traceDuration > 1s }", [5]),
        ("{ trace:duration <= 200ms && span:duration > 130ms }", [1, 2]),
        ('{ rootName = "GET /" }', [1, 2, 3]),
        ('{ rootServiceName = "bank" }', [4]),
        ('{ trace:rootService = "lost" }', []),
        (f'{{ span:id = "{span_id(3)}" || trace:id = "{trace_id(3)}" }}', [3, 5]),
        (f'{{ span:parentID = "{span_id(2)}" }}', [3]),
        ('{ (name = "GET" || name = "late") && status = error }', [2]),
        ('{ name = "late" || name = "GET" && status = unset }', [5]),  # && binds first
        ("{ // all\n /* of \n them */ }", [1, 2, 3, 4, 5]),
        ('{ span.it\'s = "no" }', []),
    ],
)  # fmt: skip
def test_query_finds_spans(connection: duckdb.DuckDBPyConnection, query: str, found: list[int]) -> None:
    parameters = SqlParameters()
    sql = compile_traceql(query, parameters).sql
    rows = connection.execute(f"SELECT s.span_id FROM spans s WHERE {sql} ORDER BY ALL", parameters.values).fetchall()  # noqa: S608
    assert [number for (number,) in rows] == found


def test_queried_attributes_are_returned() -> None:
    query = '{ .region = "us" && (span.ok = true || name = "x") && resource.service.name != nil && .region != "x" }'
    assert compile_traceql(query, SqlParameters()).attributes == (
        TraceqlAttribute("", "region"),
        TraceqlAttribute("span", "ok"),
        TraceqlAttribute("resource", "service.name"),
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "line 1, column 1: the end: a query begins with {"),
        ("status = error", "line 1, column 1: `status`: a query begins with {"),
        ("{ status = error", "line 1, column 17: the end: &&, || or } is expected"),
        ("{ status = error } | count() > 2", "line 1, column 20: `|`: only one set of spans, { … }, is supported"),
        ("{ } >> { }", "line 1, column 5: `>>`: only one set of spans, { … }, is supported"),
        ("{ } && { }", "line 1, column 5: `&&`: only one set of spans, { … }, is supported"),
        ("{\n  event.name = `x` }", "line 2, column 3: `event.name`: is not a searchable field"),
        ("{ nestedSetParent < 0 }", "line 1, column 3: `nestedSetParent`: is not a searchable field"),
        ("{ event:name = `x` }", "line 1, column 3: `event:name`: is not a searchable field"),
        ("{ parent.x = 1 }", "line 1, column 3: `parent.x`: is not a searchable field"),
        ("{ !(status = error) }", "line 1, column 3: `!`: is not a searchable field"),
        ("{ 1 = 1 }", "line 1, column 3: `1`: is not a searchable field"),
        ("{ span. = 1 }", "line 1, column 7: `.`: is not understood"),
        ("{ span.x }", "line 1, column 10: `}`: one of = != =~ !~ > >= < <= is expected"),
        ("{ span.x + 1 > 2 }", "line 1, column 10: `+`: is not understood"),
        ("{ span.x = }", "line 1, column 12: `}`: a text in quotes, a number, a duration, true, false or nil is"),
        ("{ span.x = 'y' }", "line 1, column 12: `'`: is not understood"),
        ('{ span.x = "y }', 'line 1, column 12: `"`: is not understood'),
        (r'{ span.x = "\q" }', r'line 1, column 12: `"\q"`: `\q` is not an escape sequence'),
        (r'{ span.x = "\ud800" }', r'line 1, column 12: `"\ud800"`: `\ud800` is not an escape sequence'),
        ("{ span.x = 1d }", "line 1, column 12: `1`: is not understood"),
        ("{ span.x = 1ms }", "line 1, column 12: `1ms`: an attribute is a text, a number, true, false or nil"),
        ("{ span.x = 1e400 }", "line 1, column 12: `1e400`: does not fit into 64 bits"),
        ("{ span.x =~ 1 }", "line 1, column 10: `=~`: the value that follows is compared by = != > >= < <="),
        ('{ span.x > "y" }', "line 1, column 10: `>`: the value that follows is compared by = != =~ !~"),
        ('{ name =~ "(" }', 'line 1, column 11: `"("`: is not a regular expression: '),
        ("{ name = 1 }", "line 1, column 10: `1`: a text is expected"),
        ("{ duration > 1 }", "line 1, column 14: `1`: a duration is expected"),
        ("{ status = bad }", "line 1, column 12: `bad`: one of unset, ok, error is expected"),
        ("{ status > error }", "line 1, column 10: `>`: the value that follows is compared by = !="),
        ("{ kind = nil }", "line 1, column 10: `nil`: one of unspecified, internal,"),
        ("{ " + "(" * 30 + " true " + ")" * 30 + " }", "line 1, column 23: `(`: too many parentheses"),
        ("{ " + " && ".join(["status = ok"] * 101) + " }", "line 1, column 1503: `status`: a query of more than 100"),
        ('{ span.x = "\0" } }', "line 1, column 18: `}`: only one set"),
        ("{ span.\0 = 1 }", "line 1, column 3: `span.\0`: is not a searchable field"),
    ],
)
def test_invalid_query_is_rejected_with_position(query: str, message: str) -> None:
    with pytest.raises(TraceQLError) as caught:
        compile_traceql(query, SqlParameters())
    assert str(caught.value).startswith(f"TraceQL, {message}"), caught.value


def test_go_durations_are_read() -> None:
    assert read_go_duration_ns("1h2m3.5s4ms5us6ns") == 3_723_504_005_006
    assert read_go_duration_ns("2000000h2000000h") == 2**63 - 1
    for text in ("", "1", "1d", "-1s", "1.5.s", "1 s", "٣s", "999999999999999999999h"):
        with pytest.raises(ValueError, match="is not a duration"):
            read_go_duration_ns(text)
