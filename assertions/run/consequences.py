"""Which verdicts say again what another has said: that a service was not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.events import ClaimJudged


def mark_consequences(claims_by_request: Sequence[Sequence[ClaimJudged]]) -> tuple[ClaimJudged, ...]:
    """Return all claims in their order; ``requests`` holds those about the same traces together.

    Of the claims that did not pass for want of the same service, one is the cause: a path rather than another, as it
    shows where the service should have been called; then a failure; then the first.
    """
    marked: list[ClaimJudged] = []
    for claims in claims_by_request:
        first = len(marked)
        for each in claims:
            alike = [
                place
                for place, other in enumerate(claims)
                if set(other.verdict.missing_services) & set(each.verdict.missing_services)
            ]
            cause = min(alike, key=lambda place: _rank_cause(claims[place], place), default=None)
            if cause is None or claims[cause] is each:
                marked.append(each)
            else:
                marked.append(replace(each, verdict=replace(each.verdict, follows_from=first + cause)))
    return tuple(marked)


def _rank_cause(judged: ClaimJudged, index: int) -> tuple[bool, bool, int]:
    verdict = judged.verdict
    return verdict.id != "path-mismatch", verdict.outcome is not Outcome.FAIL, index
