"""The reference and the engine come to the same verdict on whatever is made up, and what is shown for it is so.

``TESTS_FUZZ`` is the number of verdicts to compare.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanproof.assertions.judge.evaluate import Judge
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.tests.reference.claims import ClaimMaker
from spanproof.tests.reference.conditions import NotCovered
from spanproof.tests.reference.evidence import find_fault
from spanproof.tests.reference.generate import TraceMaker, TraceSet
from spanproof.tests.reference.judge import judge
from spanproof.tests.reference.minimize import minimize
from spanproof.tests.reference.random_choice import CLAIMS, WANTED, Drawn, compare
from spanproof.tests.reference.selections import World
from spanproof.tests.reference.store_traces import open_judge
from spanproof.tests.reference.write_case import write_case


@pytest.mark.timeout(0)
@compare(verdicts=int(WANTED or 1000))
@given(st.data())
def test_same_verdict(data: st.DataObject) -> None:
    chance = Drawn(data.draw)
    made = TraceMaker(chance).make()
    claims = ClaimMaker(chance)
    compared = 0
    with open_judge(made) as engine:
        while compared < CLAIMS:
            claim = claims.make()
            parsed = parse_claim(claim)
            assert not parsed.diagnostics, claim
            if check_claim(parsed):
                continue
            found = verdicts(claim, made, engine)
            if found is None:
                continue
            compared += 1
            if found[0] != found[1]:
                smaller = minimize(made, lambda less, claim=claim, found=found: verdicts(claim, less) == found)
                pytest.fail(f"the engine says {found[1]}:\n\n{write_case(smaller, claim, found[0])}", pytrace=False)


def verdicts(claim: str, made: TraceSet, engine: Judge | None = None) -> tuple[str, str] | None:
    """Return what the reference and the engine say of a claim; None where the reference says nothing.

    What the engine shows for it has to be so, too.
    """
    expectation = parse_claim(claim).expectation
    assert expectation is not None
    world = World.of(made.spans, made.settled)
    try:
        expected = judge(expectation, world)
    except NotCovered:
        return None
    with nullcontext(engine) if engine else open_judge(made) as open_:
        assert open_ is not None
        verdict = open_.judge(expectation, claim, Bindings())
    fault = find_fault(expectation, verdict, world)
    return expected, str(verdict.outcome) + (f", but {fault}" if fault else "")
