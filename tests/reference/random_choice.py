"""Common part of the tests of generated traces: random choices, and the number of compared verdicts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from msgspec import Struct

# The number of compared verdicts from the environment. If it is set, every run generates other traces.
WANTED: Final = os.environ.get("TESTS_FUZZ")
CLAIMS: Final = 25  # per trace set


class Drawn(Struct, frozen=True):
    """Choices drawn by hypothesis."""

    draw: Callable[[st.SearchStrategy[int]], int]

    def below(self, n: int) -> int:
        return self.draw(st.integers(0, n - 1))


def compare(verdicts: int) -> settings:
    """Return settings for a test that compares `CLAIMS` verdicts per example, and `verdicts` in total."""
    return settings(
        max_examples=-(-verdicts // CLAIMS),
        derandomize=WANTED is None,
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # the tests minimize a failing trace set themselves
        suppress_health_check=list(HealthCheck),
    )
