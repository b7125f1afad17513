"""Every scenario of every case file, as written and varied.

Each scenario is run as written, and in one of the other variations. ``TESTS_VARIATIONS=all`` runs it in all of them.
"""

import os
from pathlib import Path

import pytest

from spanproof.assertions.cases.case_file import parse_cases
from spanproof.assertions.cases.case_runner import run_variation
from spanproof.assertions.cases.scenario import Scenario
from spanproof.assertions.cases.variations import VARIATIONS, Variation

FILES = sorted(Path(__file__).parent.rglob("*.case"))


def list_variations(number: int) -> tuple[Variation, ...]:
    """Return the variations of the scenario with this number; scenarios in a row have different ones."""
    as_written, *others = VARIATIONS
    if os.environ.get("TESTS_VARIATIONS") == "all":
        return VARIATIONS
    return as_written, others[number % len(others)]


def list_scenarios() -> list[object]:
    scenarios = [
        (file, scenario)
        for file in FILES
        for scenario in parse_cases(file.read_text(encoding="utf-8"))
        if scenario.assertions
    ]
    return [
        pytest.param(scenario, variation, id=f"{file.stem}:{scenario.assertions[0][1].line} {variation.name}")
        for number, (file, scenario) in enumerate(scenarios)
        for variation in list_variations(number)
    ]


@pytest.mark.parametrize(("scenario", "variation"), list_scenarios())
def test_scenario(scenario: Scenario, variation: Variation) -> None:
    results = list(run_variation(scenario, variation))
    is_first = variation is VARIATIONS[0]
    expected = [each for _, each in scenario.assertions if is_first or each.outcome != "invalid"]
    assert [each.assertion for each in results] == expected
    differences = [
        f"line {each.assertion.line}: {each.assertion.claim}: {each.difference}" for each in results if each.difference
    ]
    assert not differences, "\n".join(differences)


def test_case_files_exist() -> None:
    assert len(FILES) >= 7
