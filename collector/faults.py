"""Why a span cannot be stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Kinds of faults, for those who count them."""

    ID = "invalid_id"
    TIME = "invalid_time"
    TEXT = "invalid_utf8"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and with what: the text begins with its place."""

    reason: Reason
    text: str

    def within(self, place: str) -> Fault:
        """Name where the place is."""
        return Fault(self.reason, f"{place}{self.text}")
