"""Services that begin a trace of their own: found by link, by baggage that they note, or by the response."""

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
from spanproof.tests.assertions.traced_service import Prove, Traced, link_to, read_context
from spanproof.tests.assertions.triggers.http_service import Reply, serve_http

Headers = Mapping[str, str]


@dataclass
class Edge:
    """A service that is asked over HTTP; `answer` makes its spans and returns the headers of the response."""

    url: str = ""
    answer: Callable[[Headers], Headers] = field(default=lambda _: {})


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()

    with serve_http(lambda asked: Reply(headers=edge.answer(asked.headers))) as edge.url:
        yield edge


CLAIMS = "\nexpect count(shop) == 1\nexpect no bank\nexpect path shop"
HEADERS = {
    "traceresponse": "00-{trace}-{span}-01",
    "traceparent": "00-{trace}-{span}-01",
    "X-Trace-Id": "{trace}",
    "Server-Timing": 'db;dur=53, traceparent;desc="00-{trace}-{span}-01"',
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_response_names_its_trace(edge: Edge, trace: Callable[[str], Traced], prove: Prove, header: str) -> None:
    shop = trace("shop")

    def answer(_: Headers) -> Headers:
        with shop.begin("GET /", Context()) as span:
            context = span.get_span_context()
        ids = {"trace": format_trace_id(context.trace_id), "span": format_span_id(context.span_id)}
        return {header: HEADERS[header].format(**ids)}

    edge.answer = answer
    carried = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert carried.outcome is Outcome.PASS, carried.reasons
    (note,) = carried.finished.notes
    assert note.startswith("`shop` began trace ")
    assert note.endswith(f" of its own, found by the response's header `{header.lower()}`")


def test_a_trace_that_a_response_names_is_waited_for(edge: Edge, trace: Callable[[str], Traced], prove: Prove) -> None:
    edge.answer = lambda _: {"x-trace-id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    carried = prove(f'when GET "{edge.url}/"\nexpect no shop', within="300ms")
    assert carried.outcome is Outcome.INCONCLUSIVE
    assert "no span of this trace has arrived" in carried.reasons[0]


def test_nor_does_it_hold_up_a_trace_that_is_there(edge: Edge, trace: Callable[[str], Traced], prove: Prove) -> None:
    shop = trace("shop")

    def answer(headers: Headers) -> Headers:
        with shop.serve("GET /", headers):
            pass
        return {"x-trace-id": "4bf92f3577b34da6a3ce929d0e0e4736", "traceresponse": "nonsense"}

    edge.answer = answer
    carried = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert carried.outcome is Outcome.PASS, carried.reasons
    assert carried.finished.notes == ()


def test_a_link_to_our_span_leads_to_the_trace(edge: Edge, trace: Callable[[str], Traced], prove: Prove) -> None:
    shop = trace("shop")

    def answer(headers: Headers) -> Headers:
        with shop.begin("GET /", Context(), links=[link_to(headers)]):
            pass
        return {}

    edge.answer = answer
    carried = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert carried.outcome is Outcome.PASS, carried.reasons
    assert carried.finished.notes[0].endswith(" of its own, found by its link")
    failing = prove(f'when GET "{edge.url}/"\nexpect no shop')
    assert failing.outcome is Outcome.FAIL
    assert failing.finished.view is not None
    assert [span.service for span in failing.finished.view.spans] == ["shop"]


def note_baggage(shop: Traced) -> Callable[[Headers], Headers]:
    """Answers with a trace of its own, which bears the baggage that came."""

    def answer(headers: Headers) -> Headers:
        noted = {name: str(value) for name, value in get_all(read_context(headers)).items()}
        with shop.begin("GET /", Context(), attributes=noted):
            pass
        return {}

    return answer


def test_baggage_that_a_service_notes_leads_to_the_trace(
    edge: Edge, trace: Callable[[str], Traced], prove: Prove
) -> None:
    edge.answer = note_baggage(trace("shop"))
    carried = prove(f'when GET "{edge.url}/"{CLAIMS}')
    assert carried.outcome is Outcome.PASS, carried.reasons
    assert carried.finished.notes[0].endswith(" of its own, found by the attribute `spanproof.run_id`")
    many = prove(f'when GET "{edge.url}/" {{ repeat 5 at 100/s }}\nexpect count(shop) == 5\nexpect path shop')
    assert many.outcome is Outcome.PASS, many.reasons
    (note,) = many.finished.notes
    assert note == "`shop` began 5 traces of their own, found by the attribute `spanproof.run_id`"


def test_a_trace_of_ours_may_go_on_beside_one_that_bears_its_baggage(
    add: Callable[..., None], connection: duckdb.DuckDBPyConnection
) -> None:
    """Only where nothing of our own trace is here; then it takes its time."""
    context = TraceContext("r1", f"{1:032x}", f"{99:016x}")
    belonging = TraceCorrelation(SentRequests((context,), (TriggerResponse(200, "", 1),)))
    connection.execute("INSERT INTO triggers VALUES ($trace::UUID, 99)", {"trace": context.trace_id})
    add("bank", 7, trace=2, spanproof__run_id=context.request_id)
    add("bank", 7, trace=3, spanproof__run_id="r2.0000000000000063")
    state = belonging.examine_completeness(connection, belonging.find_traces(connection))
    assert (state.trace_ids, [each.kind for each in state.missing]) == ((f"{2:032x}",), ["own"])
    assert state.compute_settle_time_ns(None) == (state.last_arrived_ns or 0) + UNCERTAIN_IDLE_NS
    add("shop", 5, 99)
    state = belonging.examine_completeness(connection, belonging.find_traces(connection))
    assert (state.trace_ids, state.missing) == ((f"{1:032x}", f"{2:032x}"), ())


def test_requests_side_by_side_are_told_apart(edge: Edge, trace: Callable[[str], Traced], prove: Prove) -> None:
    """Two requests of one run to a service that notes baggage: each finds its own trace."""
    edge.answer = note_baggage(trace("shop"))
    asked = f'when GET "{edge.url}/"\nexpect count(shop) == 1\n'
    assert prove(asked + asked).outcome is Outcome.PASS


def test_a_service_within_may_begin_a_trace_too(edge: Edge, trace: Callable[[str], Traced], prove: Prove) -> None:
    """The edge goes on with our trace; what it asks links to it from a trace of its own, which comes later."""
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
    carried = prove(f'when GET "{edge.url}/"\nexpect count(shop) == 1\nexpect count(mail) == 1')
    assert carried.outcome is Outcome.PASS, carried.reasons
    (note,) = carried.finished.notes
    assert note.startswith("`mail` began trace ")
