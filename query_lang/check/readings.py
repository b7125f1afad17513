"""Readings of the stored calls and spans where the evidence leaves something open.

A claim is judged under each reading. If the verdicts differ, what is open decides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

# Attempts that are possibly one call; attempts that a counter implies, which may be redirects; spans without an end.
Doubt = Literal["possible", "redirects", "unfinished"]
# Longer than any claim allows, and short enough that sums of it stay within 64 bits.
ENDLESS_NS: Final = 36 * 86_400 * 10**9


class DeclaredCall(Struct, frozen=True):
    """A declaration that attempts which are possibly one call are one (`joined`), or are not; ``*`` is any service."""

    caller: str
    callee: str
    joined: bool


class Reading(Struct, frozen=True):
    """One way to read what is open. The default reads attempts as one call, and unfinished spans as ended at once.

    `has_unfinished`: there are spans without an end among those that are read; `unfinished_ns` is their duration.
    """

    is_joined: bool = True
    counts_redirects: bool = True
    unfinished_ns: int = 0
    has_unfinished: bool = False
    declared: tuple[DeclaredCall, ...] = field(default=())

    @property
    def is_endless(self) -> bool:
        """Whether unfinished spans never end."""
        return self.unfinished_ns == ENDLESS_NS

    @property
    def is_plain(self) -> bool:
        """Whether calls are read as they are stored."""
        return self.is_joined and self.counts_redirects and not self.is_endless and not self.declared

    def list_others(self, doubt: Doubt, durations: Sequence[int]) -> list[Reading]:
        """Return the readings that take the other side of a doubt.

        Unfinished spans never end, or last as long as one of the `durations`.
        """
        match doubt:
            case "possible":
                return [replace(self, is_joined=False)]
            case "redirects":
                return [replace(self, counts_redirects=False)]
            case "unfinished":
                return [replace(self, unfinished_ns=duration) for duration in (ENDLESS_NS, *durations)]
