"""Agreement of verdicts on live traces in memory and on the store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanproof.assertions.findings.judged_traces import SelectedTraces
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
from spanproof.tests.reference.store_traces import make_request
from spanproof.tests.reference.write_case import write_case


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
