"""Whether judged in memory, as spans arrive, or from the store, a claim gets the same verdict."""

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
from spanproof.tests.reference.store_traces import trace_request
from spanproof.tests.reference.write_case import write_case


@pytest.mark.timeout(0)
@compare(verdicts=int(WANTED or 200) // 4)  # each is judged of several selections, twice
@given(st.data())
def test_same_verdict_in_memory(data: st.DataObject) -> None:
    chance = Drawn(data.draw)
    made, claims = TraceMaker(chance).make(), ClaimMaker(chance)
    with Store.open(settings={"threads": "1"}) as store:
        shown = LiveTraces(store)
        ours = tuple(TraceContext(trace_id=trace_id, span_id=f"{1:016x}") for trace_id in made.settled)
        register_trigger_spans(store, ours)
        shown.expect_traces({each.trace_id: each.span_id for each in ours})
        store.subscribe(shown.add_arrived)
        store.append(Decoder().decode([trace_request(made.spans).SerializeToString()]))
        derive_calls(store)
        if shown.publish():
            compare_all(made, claims, Judge(shown.connection, live=shown), Judge(store.cursor()))
        shown.close()


def compare_all(made: TraceSet, claims: ClaimMaker, in_memory: Judge, stored: Judge) -> None:
    compared = 0
    while compared < CLAIMS:
        claim = claims.make()
        expectation = parse_claim(claim).expectation
        assert expectation is not None, claim
        if check_claim(parse_claim(claim)):
            continue
        compared += 1
        for traces in (tuple(made.settled), *((trace_id,) for trace_id in made.settled)):
            verdicts = []
            for judge in (in_memory, stored):
                judge.select_traces(SelectedTraces(dict.fromkeys(traces, False), live=True))
                verdict = judge.judge(expectation, claim, Bindings())
                if isinstance(expectation.claim, s.ComparisonClaim):  # of all that a number is made of, any may show it
                    verdict = replace(verdict, witnesses=())
                verdicts.append(verdict)
            if verdicts[0] != verdicts[1]:
                said = "\n".join(map(str, verdicts))
                pytest.fail(f"of {len(traces)} traces:\n{said}\n\n{write_case(made, claim, 'pass')}", pytrace=False)
