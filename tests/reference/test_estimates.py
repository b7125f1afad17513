"""Agreement of the reference and the engine on claims about generated populations."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.tests.reference.judge import judge
from spanproof.tests.reference.populations import EstimateMaker, PopulationMaker
from spanproof.tests.reference.random_choice import CLAIMS, WANTED, Drawn, compare
from spanproof.tests.reference.selections import World
from spanproof.tests.reference.store_traces import open_judge
from spanproof.tests.reference.write_case import write_case

VERDICTS: Final[Counter[str]] = Counter()
SCOPE: Final = Scope(baseline=True)


@pytest.mark.timeout(0)
def test_estimates_agree_with_reference() -> None:
    compare_estimates()
    assert set(VERDICTS) == {"pass", "fail", "inconclusive"}


@compare(verdicts=int(WANTED or 2000) // 4)
@given(st.data())
def compare_estimates(data: st.DataObject) -> None:
    choices = Drawn(data.draw)
    population = PopulationMaker(choices).make()
    claims = EstimateMaker(choices)
    world = World.of(population.spans, population.settled, population.baseline)
    with open_judge(population) as engine:
        for _ in range(CLAIMS):
            claim = claims.make()
            parsed = parse_claim(claim)
            expectation = parsed.expectation
            assert expectation is not None
            assert not parsed.diagnostics, claim
            if check_claim(parsed, SCOPE):
                continue
            expected, verdict = judge(expectation, world), engine.judge(expectation, claim, Bindings())
            VERDICTS[verdict.outcome] += 1
            if str(verdict.outcome) != expected:
                pytest.fail(
                    f"the engine says {verdict.outcome}: {verdict.reason}\n\n{write_case(population, claim, expected)}",
                    pytrace=False,
                )
