"""Verdicts that repeat the cause of another verdict: the same missing service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.events import ClaimJudged


def mark_consequences(claims_by_request: Sequence[Sequence[ClaimJudged]]) -> tuple[ClaimJudged, ...]:
    """Return all claims in order, each consequence with the index of its cause; each group concerns the same traces.

    Among the claims that did not pass because the same service is missing, the cause is a path if there is one,
    because it shows where the service should have been called; else a failure; else the first claim.
    """
    marked: list[ClaimJudged] = []
    for claims in claims_by_request:
        first = len(marked)
        for each in claims:
            related = [
                index
                for index, other in enumerate(claims)
                if set(other.verdict.missing_services) & set(each.verdict.missing_services)
            ]
            cause = min(related, key=lambda index: _rank_cause(claims[index], index), default=None)
            if cause is None or claims[cause] is each:
                marked.append(each)
            else:
                marked.append(replace(each, verdict=replace(each.verdict, follows_from=first + cause)))
    return tuple(marked)


def _rank_cause(judged: ClaimJudged, index: int) -> tuple[bool, bool, int]:
    verdict = judged.verdict
    return verdict.id != "path-mismatch", verdict.outcome is not Outcome.FAIL, index
