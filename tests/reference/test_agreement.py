"""The reference and the engine come to the same verdict on whatever is made up.

``SPANPROOF_FUZZ`` is the number of verdicts to compare. Where it is set, other traces are made up at every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from spanproof.query_lang.check import check_claim
from spanproof.query_lang.constants import Bindings
from spanproof.query_lang.parse import parse_claim
from spanproof.tests.reference.claims import ClaimMaker
from spanproof.tests.reference.conditions import NotCovered
from spanproof.tests.reference.generate import TraceMaker
from spanproof.tests.reference.judge import judge
from spanproof.tests.reference.selections import World
from spanproof.tests.reference.send import open_judge
from spanproof.tests.reference.write_case import write_case

WANTED = int(os.environ.get("SPANPROOF_FUZZ", "1000"))
CLAIMS = 25  # for each trace set


@dataclass(frozen=True, slots=True)
class Drawn:
    """Choices made by hypothesis, so that it can find simpler ones."""

    draw: Callable[[st.SearchStrategy[int]], int]

    def below(self, n: int) -> int:
        return self.draw(st.integers(0, n - 1))


@pytest.mark.timeout(0)
@settings(
    max_examples=WANTED // CLAIMS,
    derandomize="SPANPROOF_FUZZ" not in os.environ,
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_same_verdict(data: st.DataObject) -> None:
    chance = Drawn(data.draw)
    made = TraceMaker(chance).make()
    claims = ClaimMaker(chance)
    world = World.of(made.spans, made.settled)
    with open_judge(made) as engine:
        for _ in range(CLAIMS):
            claim = claims.make()
            parsed = parse_claim(claim)
            if parsed.expectation is None or check_claim(parsed):
                continue
            try:
                expected = judge(parsed.expectation, world)
            except NotCovered:
                continue
            verdict = engine.judge(parsed.expectation, claim, Bindings())
            assert verdict.outcome == expected, f"{verdict.reason}\n\n{write_case(made, claim, expected)}"
