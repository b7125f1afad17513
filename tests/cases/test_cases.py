"""Every assertion of every case file, in every variation."""

from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from spanproof.assertions.cases.case_file import parse_cases
from spanproof.assertions.cases.case_runner import CaseResult, run_scenario
from spanproof.assertions.cases.scenario import CaseAssertion, Scenario
from spanproof.assertions.cases.variations import VARIATIONS

FILES = sorted(Path(__file__).parent.rglob("*.case"))


@cache
def load_scenarios(file: Path) -> tuple[Scenario, ...]:
    return tuple(parse_cases(file.read_text(encoding="utf-8")))


@cache
def run_file(file: Path, index: int) -> dict[int, list[CaseResult]]:
    by_line = defaultdict(list)
    for result in run_scenario(load_scenarios(file)[index]):
        by_line[result.assertion.line].append(result)
    return by_line


def list_assertions() -> list[object]:
    return [
        pytest.param(file, index, assertion, id=f"{file.stem}:{assertion.line} {assertion.claim[:60]}")
        for file in FILES
        for index, scenario in enumerate(load_scenarios(file))
        for _, assertion in scenario.assertions
    ]


@pytest.mark.parametrize(("file", "index", "assertion"), list_assertions())
def test_case(file: Path, index: int, assertion: CaseAssertion) -> None:
    results = run_file(file, index)[assertion.line]
    assert len(results) == (1 if assertion.outcome == "invalid" else len(VARIATIONS))
    assert [(each.variation, each.difference) for each in results if each.difference] == []


def test_case_files_exist() -> None:
    assert len(FILES) >= 7
