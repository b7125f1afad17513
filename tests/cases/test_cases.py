"""Every assertion of every case file, in every variation of how its traces are sent."""

from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from spanproof.assertions.cases.case_file import CaseAssertion, Scenario, parse_cases
from spanproof.assertions.cases.case_runner import VARIATIONS, CaseResult, run_scenario

FILES = sorted(Path(__file__).parent.glob("*.case"))
WAITS = "is not carried out by this version"


@cache
def scenes(file: Path) -> tuple[Scenario, ...]:
    return tuple(parse_cases(file.read_text(encoding="utf-8")))


@cache
def results(file: Path, place: int) -> dict[int, list[CaseResult]]:
    by_line = defaultdict(list)
    for result in run_scenario(scenes(file)[place]):
        by_line[result.assertion.line].append(result)
    return by_line


def assertions() -> list[object]:
    return [
        pytest.param(file, place, assertion, id=f"{file.stem}:{assertion.line} {assertion.claim[:60]}")
        for file in FILES
        for place, scene in enumerate(scenes(file))
        for _, assertion in scene.assertions
    ]


@pytest.mark.parametrize(("file", "place", "assertion"), assertions())
def test_case(file: Path, place: int, assertion: CaseAssertion) -> None:
    found = results(file, place)[assertion.line]
    assert len(found) == (1 if assertion.outcome == "invalid" else len(VARIATIONS))
    waiting = [each.difference for each in found if each.difference and WAITS in each.difference]
    if waiting:
        pytest.xfail(f"waits for the rest of the language: {waiting[0]}")
    assert [(each.variation, each.difference) for each in found if each.difference] == []


def test_there_are_cases() -> None:
    assert len(FILES) >= 7
