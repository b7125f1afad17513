"""The reference returns the expected outcome for every assertion of every case file."""

from pathlib import Path

import pytest

from spanproof.assertions.cases.case_file import parse_cases
from spanproof.assertions.cases.scenario import CaseAssertion, CaseTrace, Scenario
from spanproof.query_lang.syntax.parser import parse_claim
from spanproof.tests.reference.from_cases import make_world
from spanproof.tests.reference.judge import judge

FILES = sorted((Path(__file__).parent.parent / "cases").rglob("*.case"))


def list_assertions() -> list[object]:
    return [
        pytest.param(scenario, traces, assertion, id=f"{file.stem}:{assertion.line} {assertion.claim[:60]}")
        for file in FILES
        for scenario in parse_cases(file.read_text(encoding="utf-8"))
        for traces, assertion in scenario.assertions
        if assertion.outcome != "invalid"
    ]


@pytest.mark.parametrize(("scenario", "traces", "assertion"), list_assertions())
def test_reference_returns_expected_outcome(
    scenario: Scenario, traces: tuple[CaseTrace, ...], assertion: CaseAssertion
) -> None:
    expectation = parse_claim(assertion.claim).expectation
    assert expectation is not None
    assert judge(expectation, make_world(traces, scenario.rules)) == assertion.outcome
