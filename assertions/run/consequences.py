"""Verdicts that repeat the cause of another verdict: the same missing service, or the same missing evidence."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.run.events import ClaimJudged


def mark_consequences(claims_by_request: Sequence[Sequence[ClaimJudged]]) -> tuple[ClaimJudged, ...]:
    """Return all claims in order, each consequence with the index of its cause; each group concerns the same traces.

    Among the claims that did not pass for the same cause, such as a missing service, that is a path if there is one,
    because it shows where the service should have been called; else a failure; else the first claim.
    """
    marked: list[ClaimJudged] = []
    for claims in claims_by_request:
        first = len(marked)
        for each in claims:
            related = [index for index, other in enumerate(claims) if _share_cause(other.verdict, each.verdict)]
            cause = min(related, key=lambda index: _rank_cause(claims[index], index), default=None)
            if cause is None or claims[cause] is each:
                marked.append(each)
            else:
                marked.append(replace(each, verdict=replace(each.verdict, follows_from=first + cause)))
    return tuple(marked)


def _share_cause(first: Verdict, second: Verdict) -> bool:
    if set(first.missing_services) & set(second.missing_services):
        return True
    return first.cause is not None and first.cause == second.cause


def _rank_cause(judged: ClaimJudged, index: int) -> tuple[bool, bool, int]:
    verdict = judged.verdict
    return verdict.id != "path-mismatch", verdict.outcome is not Outcome.FAIL, index
