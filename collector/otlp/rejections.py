"""Why a span cannot be stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RejectionReason(StrEnum):
    """Kinds of faults, for those who count them."""

    ID = "invalid_id"
    TIME = "invalid_time"
    TEXT = "invalid_utf8"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is wrong, and with what: the text begins with its place."""

    reason: RejectionReason
    message: str

    def with_prefix(self, prefix: str) -> Rejection:
        """Name where the place is."""
        return Rejection(self.reason, f"{prefix}{self.message}")
