"""Agreement of verdicts on live traces in memory and on the store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.judge.evaluate import Judge
from spanproof.assertions.run.proof_requests import register_trigger_spans
from spanproof.assertions.triggers.context import TraceContext
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.live_traces import LiveTraces
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.tests.reference.claims import ClaimMaker
from spanproof.tests.reference.generate import TraceMaker, TraceSet
from spanproof.tests.reference.random_choice import CLAIMS, WANTED, Drawn, compare
from spanproof.tests.reference.spans import Span, Value
from spanproof.tests.reference.store_traces import make_request
from spanproof.tests.reference.write_case import write_case

SERVER, CLIENT = WireSpan.SPAN_KIND_SERVER, WireSpan.SPAN_KIND_CLIENT
POST: dict[str, Value] = {
    "http.request.method": "POST", "url.full": "http://bank/charge", "server.address": "bank", "error.type": "503",
    "http.response.status_code": 503,
}  # fmt: skip


@pytest.mark.timeout(0)
@compare(verdicts=int(WANTED or 200) // 4)  # each claim is judged for several selections, twice
@given(st.data())
def test_live_verdict_agrees_with_stored_verdict(data: st.DataObject) -> None:
    choices = Drawn(data.draw)
    trace_set, claims = TraceMaker(choices).make(), ClaimMaker(choices)
    with Store.open(settings={"threads": "1"}) as store:
        live = LiveTraces(store)
        contexts = tuple(TraceContext(trace_id=trace_id, span_id=f"{1:016x}") for trace_id in trace_set.settled)
        register_trigger_spans(store, contexts)
        live.expect_traces({each.trace_id: each.span_id for each in contexts})
        store.subscribe(live.add_arrived)
        store.append(Decoder().decode([make_request(trace_set.spans).SerializeToString()]))
        derive_calls(store)
        if live.publish():
            compare_all(trace_set, claims, Judge(live.connection, live=live), Judge(store.cursor()))
        live.close()


def test_doubt_that_arrives_after_the_first_verdict_counts() -> None:
    claim = "no retry shop -> bank"
    expectation = parse_claim(claim).expectation
    assert expectation is not None
    trace_id = f"{1:032x}"
    first = [
        make_span(trace_id, 1, None, "shop", SERVER, (0, 100)),
        make_span(trace_id, 2, 1, "shop", CLIENT, (10, 20), POST),
        make_span(trace_id, 3, 2, "bank", SERVER, (11, 19)),
    ]
    second = [
        make_span(trace_id, 4, 1, "shop", CLIENT, (30, 40), POST),
        make_span(trace_id, 5, 4, "bank", SERVER, (31, 39)),
    ]
    with Store.open(settings={"threads": "1"}) as store:
        live = LiveTraces(store)
        live.expect_traces({trace_id: f"{99:016x}"})
        store.subscribe(live.add_arrived)
        judge = Judge(live.connection, live=live)
        judge.select_traces(SelectedTraces({trace_id: False}, live=True))
        verdicts = []
        for spans in (first, second):
            store.append(Decoder().decode([make_request(spans).SerializeToString()]))
            assert live.publish()
            verdicts.append(judge.judge(expectation, claim, Bindings()))
        live.close()
    assert [(each.outcome, each.final) for each in verdicts] == [(Outcome.INCONCLUSIVE, False)] * 2
    assert "one call" in verdicts[1].reason, verdicts[1]


def make_span(
    trace_id: str, number: int, parent: int | None, service: str, kind: int, ms: tuple[int, int],
    attributes: dict[str, Value] | None = None,
) -> Span:  # fmt: skip
    start_ns, end_ns = (1_700_000_000_000_000_000 + 1_000_000 * each for each in ms)
    parent_id = None if parent is None else f"{parent:016x}"
    return Span(
        trace_id, f"{number:016x}", parent_id, service, "POST", kind, start_ns, end_ns, attributes=attributes or {}
    )


def compare_all(trace_set: TraceSet, claims: ClaimMaker, in_memory: Judge, stored: Judge) -> None:
    compared = 0
    while compared < CLAIMS:
        claim = claims.make()
        expectation = parse_claim(claim).expectation
        assert expectation is not None, claim
        if check_claim(parse_claim(claim)):
            continue
        compared += 1
        for traces in (tuple(trace_set.settled), *((trace_id,) for trace_id in trace_set.settled)):
            verdicts = []
            for judge in (in_memory, stored):
                judge.select_traces(SelectedTraces(dict.fromkeys(traces, False), live=True))
                verdict = judge.judge(expectation, claim, Bindings())
                if isinstance(expectation.claim, s.ComparisonClaim):  # any of the aggregated spans may be the witness
                    verdict = replace(verdict, witnesses=())
                verdicts.append(verdict)
            if verdicts[0] != verdicts[1]:
                listed = "\n".join(map(str, verdicts))
                pytest.fail(
                    f"for {len(traces)} traces:\n{listed}\n\n{write_case(trace_set, claim, 'pass')}", pytrace=False
                )
