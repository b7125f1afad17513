"""Every assertion of every case file gets the same outcome from the reference."""

from pathlib import Path

import pytest

from spanproof.assertions.cases.case_file import CaseAssertion, CaseTrace, Scenario, parse_cases
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.tests.reference.from_cases import world_of
from spanproof.tests.reference.judge import judge

FILES = sorted((Path(__file__).parent.parent / "cases").glob("*.case"))


def assertions() -> list[object]:
    return [
        pytest.param(scene, traces, assertion, id=f"{file.stem}:{assertion.line} {assertion.claim[:60]}")
        for file in FILES
        for scene in parse_cases(file.read_text(encoding="utf-8"))
        for traces, assertion in scene.assertions
        if assertion.outcome != "invalid"
    ]


@pytest.mark.parametrize(("scene", "traces", "assertion"), assertions())
def test_case(scene: Scenario, traces: tuple[CaseTrace, ...], assertion: CaseAssertion) -> None:
    expectation = parse_claim(assertion.claim).expectation
    assert expectation is not None
    assert judge(expectation, world_of(traces, scene.rules)) == assertion.outcome
