"""Services that start a separate trace: found by link, by recorded baggage, or by a response header."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import duckdb
import pytest
from opentelemetry.baggage import get_all
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.proof_requests import SentRequests
from spanproof.assertions.run.trace_correlation import TraceCorrelation
from spanproof.assertions.triggers.context import TraceContext
from spanproof.assertions.triggers.responses import TriggerResponse
from spanproof.collector.traces.completeness import UNCERTAIN_IDLE_NS
from spanproof.tests.assertions.traced_service import Prove, TracedService, link_to, read_context
from spanproof.tests.assertions.triggers.http_service import Reply, serve_http

Headers = Mapping[str, str]


@dataclass
class Edge:
    """An HTTP service; `answer` creates its spans and returns the response headers."""

    url: str = ""
    answer: Callable[[Headers], Headers] = field(default=lambda _: {})


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()

    with serve_http(lambda request: Reply(headers=edge.answer(request.headers))) as edge.url:
        yield edge


CLAIMS = "\nexpect count(shop) == 1\nexpect no bank\nexpect path shop"
HEADERS = {
    "traceresponse": "00-{trace}-{span}-01",
    "traceparent": "00-{trace}-{span}-01",
    "X-Trace-Id": "{trace}",
    "Server-Timing": 'db;dur=53, traceparent;desc="00-{trace}-{span}-01"',
}


@pytest.mark.parametrize("header", HEADERS)
def test_response_header_names_trace(
    edge: Edge, trace: Callable[[str], TracedService], prove: Prove, header: str
) -> None:
    shop = trace("shop")

    def answer(_: Headers) -> Headers:
        with shop.begin("GET /", Context()) as span:
            context = span.get_span_context()
        ids = {"trace": format_trace_id(context.trace_id), "span": format_span_id(context.span_id)}
        return {header: HEADERS[header].format(**ids)}

    edge.answer = answer
    result = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert result.outcome is Outcome.PASS, result.reasons
    (note,) = result.finished.notes
    assert note.startswith("`shop` started separate trace ")
    assert note.endswith(f", found by the response header `{header.lower()}`")


def test_trace_named_by_response_is_awaited(edge: Edge, trace: Callable[[str], TracedService], prove: Prove) -> None:
    edge.answer = lambda _: {"x-trace-id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    result = prove(f'when GET "{edge.url}/"\nexpect no shop', within="300ms")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "no span of this trace has arrived" in result.reasons[0]


def test_named_trace_does_not_delay_own_trace(edge: Edge, trace: Callable[[str], TracedService], prove: Prove) -> None:
    shop = trace("shop")

    def answer(headers: Headers) -> Headers:
        with shop.serve("GET /", headers):
            pass
        return {"x-trace-id": "4bf92f3577b34da6a3ce929d0e0e4736", "traceresponse": "nonsense"}

    edge.answer = answer
    result = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert result.outcome is Outcome.PASS, result.reasons
    assert result.finished.notes == ()


def test_link_to_trigger_span_finds_trace(edge: Edge, trace: Callable[[str], TracedService], prove: Prove) -> None:
    shop = trace("shop")

    def answer(headers: Headers) -> Headers:
        with shop.begin("GET /", Context(), links=[link_to(headers)]):
            pass
        return {}

    edge.answer = answer
    result = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert result.outcome is Outcome.PASS, result.reasons
    assert result.finished.notes[0].endswith(", found by its link")
    failing = prove(f'when GET "{edge.url}/"\nexpect no shop')
    assert failing.outcome is Outcome.FAIL
    assert failing.finished.view is not None
    assert [span.service for span in failing.finished.view.spans] == ["shop"]


def record_baggage(shop: TracedService) -> Callable[[Headers], Headers]:
    """Return an answer function that starts a separate trace with the received baggage as attributes."""

    def answer(headers: Headers) -> Headers:
        attributes = {name: str(value) for name, value in get_all(read_context(headers)).items()}
        with shop.begin("GET /", Context(), attributes=attributes):
            pass
        return {}

    return answer


def test_recorded_baggage_finds_trace(edge: Edge, trace: Callable[[str], TracedService], prove: Prove) -> None:
    edge.answer = record_baggage(trace("shop"))
    result = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert result.outcome is Outcome.PASS, result.reasons
    assert result.finished.notes[0].endswith(", found by the attribute `spanproof.run_id`")
    repeated = prove(f'when GET "{edge.url}/" {{ repeat 5 at 100/s }}\nexpect count(shop) == 5\nexpect path shop')
    assert repeated.outcome is Outcome.PASS, repeated.reasons
    (note,) = repeated.finished.notes
    assert note == "`shop` started 5 separate traces, found by the attribute `spanproof.run_id`"


def test_own_trace_may_continue_beside_replacement(
    add: Callable[..., None], connection: duckdb.DuckDBPyConnection
) -> None:
    """It may do so only while no span of our own trace has arrived; then the longer idle time applies."""
    context = TraceContext("r1", f"{1:032x}", f"{99:016x}")
    correlation = TraceCorrelation(SentRequests((context,), (TriggerResponse(200, "", 1),)))
    connection.execute("INSERT INTO triggers VALUES ($trace::UUID, 99)", {"trace": context.trace_id})
    add("bank", 7, trace=2, spanproof__run_id=context.request_id)
    add("bank", 7, trace=3, spanproof__run_id="r2.0000000000000063")
    state = correlation.examine_completeness(connection, correlation.find_traces(connection))
    assert (state.trace_ids, [each.kind for each in state.missing]) == ((f"{2:032x}",), ["own"])
    times = state.compute_settle_times_ns(None)
    assert times is not None
    assert times.absence_ns == (state.last_arrived_ns or 0) + UNCERTAIN_IDLE_NS
    add("shop", 5, 99)
    state = correlation.examine_completeness(connection, correlation.find_traces(connection))
    assert (state.trace_ids, state.missing) == ((f"{1:032x}", f"{2:032x}"), ())


def test_requests_of_one_run_are_distinguished(edge: Edge, trace: Callable[[str], TracedService], prove: Prove) -> None:
    """Each of two requests of one run finds its own trace at a service that records baggage."""
    edge.answer = record_baggage(trace("shop"))
    statements = f'when GET "{edge.url}/"\nexpect count(shop) == 1\n'
    assert prove(statements + statements).outcome is Outcome.PASS


def test_inner_service_may_start_trace(edge: Edge, trace: Callable[[str], TracedService], prove: Prove) -> None:
    """The edge continues our trace; the service that it calls links to it from a separate trace."""
    shop, mail = trace("shop"), trace("mail")

    def answer(headers: Headers) -> Headers:
        with shop.serve("GET /", headers) as span:
            context = span.get_span_context()
        inner = {
            "traceparent": f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-01",
        }
        with mail.begin("GET /mail", Context(), SpanKind.SERVER, [link_to(inner)]):
            pass
        return {}

    edge.answer = answer
    result = prove(f'when GET "{edge.url}/"\nexpect count(shop) == 1\nexpect count(mail) == 1')
    assert result.outcome is Outcome.PASS, result.reasons
    (note,) = result.finished.notes
    assert note.startswith("`mail` started separate trace ")
