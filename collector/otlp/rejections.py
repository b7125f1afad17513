"""Reasons why a span cannot be stored."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class RejectionReason(StrEnum):
    """Kinds of rejections, as counted in metrics."""

    ID = "invalid_id"
    TIME = "invalid_time"
    TEXT = "invalid_utf8"
    MALFORMED = "malformed"


class Rejection(Struct, frozen=True):
    """A reason and a message that starts with the path of the invalid value."""

    reason: RejectionReason
    message: str

    def with_prefix(self, prefix: str) -> Rejection:
        """Return the rejection with `prefix` before its message."""
        return Rejection(self.reason, f"{prefix}{self.message}")
