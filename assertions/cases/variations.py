"""Variations of a scenario: other ways to send the same traces."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Variation(Struct, frozen=True):
    """A way to send the traces of a scenario; the verdicts must not depend on it."""

    name: str
    shuffled: bool = False
    split: bool = False
    duplicated: bool = False
    shift_ns: int = 0
    salt: str = ""


VARIATIONS: Final = (
    Variation("as written"),
    Variation("shuffled, split over requests", split=True, shuffled=True),
    Variation(
        "duplicated, shifted in time, under other ids", duplicated=True, shift_ns=86_400_000_000_123, salt="other"
    ),
)
