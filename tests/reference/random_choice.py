"""What tests of generated traces have in common: how these are drawn, and how many verdicts on them are compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

# How many verdicts are compared, where it is said. Other traces are made up at every run then.
WANTED: Final = os.environ.get("TESTS_FUZZ")
CLAIMS: Final = 25  # for each trace set


@dataclass(frozen=True, slots=True)
class Drawn:
    """Choices made by hypothesis, so that it can find simpler ones."""

    draw: Callable[[st.SearchStrategy[int]], int]

    def below(self, n: int) -> int:
        return self.draw(st.integers(0, n - 1))


def compare(verdicts: int) -> settings:
    """Return settings for a test that compares `CLAIMS` verdicts a time, and so many in all."""
    return settings(
        max_examples=-(-verdicts // CLAIMS),
        derandomize=WANTED is None,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # what is found is made smaller by its spans
        suppress_health_check=list(HealthCheck),
    )
