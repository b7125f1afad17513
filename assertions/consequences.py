"""Which verdicts say again what another has said: that a service was not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spanproof.assertions.events import Judged
from spanproof.assertions.verdict import Outcome


def mark_consequences(requests: Sequence[Sequence[Judged]]) -> tuple[Judged, ...]:
    """Return all claims in their order; ``requests`` holds those about the same traces together.

    Of the claims that did not pass for want of the same service, one is the cause: a path rather than another, as it
    shows where the service should have been called; then a failure; then the first.
    """
    marked: list[Judged] = []
    for claims in requests:
        first = len(marked)
        for each in claims:
            alike = [place for place, other in enumerate(claims) if set(other.verdict.lacks) & set(each.verdict.lacks)]
            cause = min(alike, key=lambda place: _rank(claims[place], place), default=None)
            if cause is None or claims[cause] is each:
                marked.append(each)
            else:
                marked.append(replace(each, verdict=replace(each.verdict, follows_from=first + cause)))
    return tuple(marked)


def _rank(judged: Judged, place: int) -> tuple[bool, bool, int]:
    verdict = judged.verdict
    return verdict.id != "path-mismatch", verdict.outcome is not Outcome.FAIL, place
