"""What the log says of a claim: it holds, it fails, or there was nothing to judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from spanproof.tests.field.arrivals import Attempt, Outcome, Request, RunLog
from spanproof.tests.field.plans import Plan

MS: Final = 1_000_000
FAILED: Final = (Outcome.RETRYABLE, Outcome.CUT)
OVERHEAD_NS: Final = 1000 * MS  # most that a client may add to an attempt: connecting, loading classes
MEASURABLE_NS: Final = 30 * MS  # a gap below is noise
# How much later than the log says a delivery may end by its span, which includes what the worker does afterwards;
# on a busy machine it was more than 100 ms. The worker retries after 500 ms.
WORKER_NS: Final = 400 * MS


class Truth(Enum):
    """What the right verdict is; where there was nothing to judge, it is inconclusive."""

    HOLDS = "holds"
    FAILS = "fails"
    VACUOUS = "vacuous"


@dataclass(frozen=True, slots=True)
class JudgedClaim:
    """A claim of one kind, and the truth about it."""

    kind: str
    text: str
    truth: Truth


Call = list[Attempt]


@dataclass(frozen=True, slots=True)
class Names:
    """How the claims name the callees: by service, or by address where they export no spans."""

    inventory: str
    backup: str


def list_claims(plan: Plan, log: RunLog, names: Names, *, is_message: bool = False) -> list[JudgedClaim]:
    """Return the claims about a run with their truth, each kind in a form that holds and in one that fails."""
    calls = group_calls(log, "inventory")
    if not calls or (plan.shape == "parallel" and not _overlap(calls)):
        return []
    if is_message:
        edge = f"web ~> {names.inventory}"
        return [*_claim_retries(edge, calls), *_claim_counts(edge, calls)]
    edge = f"web -> {names.inventory}"
    claims = [*_claim_retries(edge, calls), *_claim_timeouts(edge, calls)]
    if not any(attempt.outcome is Outcome.REDIRECT for call in calls for attempt in call):
        claims += [*_claim_counts(edge, calls), *_claim_fallback(edge, names.backup, log, calls)]
        if plan.shape != "parallel":
            claims += _claim_circuits(edge, log, calls)
    return claims


def group_calls(log: RunLog, service: str) -> list[Call]:
    """Group attempts to logical calls: by the request of web that caused them, and by web's own number."""
    calls: dict[tuple[int, str], Call] = defaultdict(list)
    for attempt in log.list_attempts(service):
        calls[_find_request(log, attempt), attempt.ask].append(attempt)
    return list(calls.values())


def _find_request(log: RunLog, attempt: Attempt) -> int:
    """Return the index of the request that was served when the attempt began; requests follow each other."""
    return max(index for index, request in enumerate(log.requests) if request.start_ns <= attempt.start_ns)


def _overlap(calls: list[Call]) -> bool:
    """Return whether the first attempts ran at the same time, as planned; a busy machine may delay one."""
    return max(call[0].start_ns for call in calls) < min(call[0].end_ns for call in calls)


def _count_attempts(call: Call) -> int:
    """Return the number of attempts; what follows a redirect belongs to the same attempt."""
    return sum(attempt.outcome is not Outcome.REDIRECT for attempt in call) or 1


def _is_exhausted(call: Call) -> bool:
    return call[-1].outcome in FAILED


def _truth(holds: bool) -> Truth:
    return Truth.HOLDS if holds else Truth.FAILS


def _claim_retries(edge: str, calls: list[Call]) -> Iterator[JudgedClaim]:
    retried = any(_count_attempts(call) > 1 for call in calls)
    yield JudgedClaim("no retry", f"no retry {edge}", _truth(not retried))
    tried_first = [call for call in calls if call[0].outcome in FAILED]
    if not tried_first:
        yield JudgedClaim("retry", f"retry {edge} {{ attempts >= 2 }}", Truth.VACUOUS)
        yield JudgedClaim("retry", f"retry {edge} {{ attempts == 1, recovered }}", Truth.VACUOUS)
        return
    reacted = all(_count_attempts(call) > 1 for call in tried_first)
    yield JudgedClaim("retry", f"retry {edge} {{ attempts >= 2 }}", _truth(reacted))
    for n in sorted({each for call in tried_first for each in (_count_attempts(call), _count_attempts(call) + 1)}):
        holds = reacted and all(_count_attempts(call) == n for call in tried_first)
        yield JudgedClaim("retry", f"retry {edge} {{ attempts == {n} }}", _truth(holds))
    recovered = reacted and all(call[-1].outcome is Outcome.OK for call in tried_first)
    yield JudgedClaim("retry", f"retry {edge} {{ recovered }}", _truth(recovered))
    exhausted = reacted and all(map(_is_exhausted, tried_first))
    yield JudgedClaim("retry", f"retry {edge} {{ exhausted }}", _truth(exhausted))
    gaps = [after.start_ns - before.end_ns for call in tried_first for before, after in pairwise(call)]
    if reacted and min(gaps) >= MEASURABLE_NS:
        late_ns = WORKER_NS if "~>" in edge else 0
        certain_ns = max(0, min(min(gaps) // 2, min(gaps) - late_ns))
        for limit_ns, holds in ((certain_ns, True), (2 * min(gaps) + 100 * MS, False)):
            yield JudgedClaim("backoff", f"retry {edge} {{ backoff >= {limit_ns // MS}ms }}", _truth(holds))


def _claim_counts(edge: str, calls: list[Call]) -> Iterator[JudgedClaim]:
    total = sum(map(_count_attempts, calls))
    for n in (len(calls), len(calls) + 1):
        yield JudgedClaim("count", f"count({edge}) == {n}", _truth(n == len(calls)))
    for n in (total, total + 1):
        yield JudgedClaim("try", f"count(try {edge}) == {n}", _truth(n == total))
    most = max(map(_count_attempts, calls))
    for n in (most, most + 1):
        uniform = all(_count_attempts(call) == n for call in calls)
        yield JudgedClaim("attempts", f"attempts({edge}) == {n}", _truth(uniform))
        yield JudgedClaim("attempts", f"max(attempts({edge})) == {n}", _truth(n == most))
    failed = sum(call[-1].outcome is not Outcome.OK for call in calls)
    percent = 100 * failed // len(calls)
    if 100 * failed % len(calls) == 0:
        yield JudgedClaim("error_rate", f"error_rate({edge}) == {percent}%", Truth.HOLDS)
    else:
        yield JudgedClaim("error_rate", f"error_rate({edge}) <= {percent + 1}%", Truth.HOLDS)
    wrong = f"error_rate({edge}) > {percent + 1}%" if percent < 50 else f"error_rate({edge}) < {percent}%"
    yield JudgedClaim("error_rate", wrong, Truth.FAILS)


def _claim_timeouts(edge: str, calls: list[Call]) -> Iterator[JudgedClaim]:
    attempts = [attempt for call in calls for attempt in call]
    longest = max(attempt.duration_ns for attempt in attempts)
    cut = any(attempt.outcome is Outcome.CUT for attempt in attempts)
    limit_ms = (2 * longest + OVERHEAD_NS) // MS
    within = f"timeout {edge} within {limit_ms}ms"
    yield JudgedClaim("timeout", within, Truth.HOLDS if cut else Truth.VACUOUS)
    if longest >= 100 * MS:
        yield JudgedClaim("timeout", f"timeout {edge} within {longest // 2 // MS}ms", Truth.FAILS)


def _claim_fallback(edge: str, backup: str, log: RunLog, calls: list[Call]) -> Iterator[JudgedClaim]:
    exhausted = [call for call in calls if _is_exhausted(call)]
    if not exhausted:
        yield JudgedClaim("fallback", f"fallback {edge} => {backup}", Truth.VACUOUS)
        return
    rescues = group_calls(log, "backup")
    holds = all(
        any(
            _find_request(log, rescue[0]) == _find_request(log, call[-1])
            and rescue[-1].outcome is Outcome.OK
            and rescue[0].start_ns > call[-1].start_ns
            for rescue in rescues
        )
        and log.requests[_find_request(log, call[-1])].status < 500
        for call in exhausted
    )
    yield JudgedClaim("fallback", f"fallback {edge} => {backup}", _truth(holds))
    yield JudgedClaim("fallback", f"fallback {edge} => nowhere", Truth.FAILS)


@dataclass(frozen=True, slots=True)
class Streak:
    """Failed attempts in a row, and what came next: requests without an attempt, an attempt, or nothing."""

    failures: int
    end_ns: int
    unserved: tuple[Request, ...]
    next_ns: int | None


def find_streaks(log: RunLog, calls: list[Call]) -> list[Streak]:
    """Return the state after each failed attempt."""
    attempts = sorted((attempt for call in calls for attempt in call), key=lambda each: each.start_ns)
    streaks, failures = [], 0
    for index, attempt in enumerate(attempts):
        failures = failures + 1 if attempt.outcome in FAILED else 0
        if failures:
            following = attempts[index + 1] if index + 1 < len(attempts) else None
            unserved = tuple(
                request
                for request in log.requests
                if request.start_ns > attempt.end_ns and (following is None or request.end_ns < following.start_ns)
            )
            streaks.append(
                Streak(failures, attempt.end_ns, unserved, None if following is None else following.start_ns)
            )
            if unserved:
                failures = 0  # it opened
    return streaks


def _claim_circuits(edge: str, log: RunLog, calls: list[Call]) -> Iterator[JudgedClaim]:
    streaks = find_streaks(log, calls)
    longest = max((streak.failures for streak in streaks), default=0)
    openings = [streak for streak in streaks if streak.unserved]
    for n in (2, 3, 4, 6):
        ended = [streak for streak in streaks if streak.failures == n]
        if any(streak.failures < n for streak in openings) or any(
            not streak.unserved and streak.next_ns is not None for streak in ended
        ):
            truth = Truth.FAILS
        elif longest < n:
            truth = Truth.VACUOUS
        elif all(streak.unserved for streak in ended):
            truth = Truth.HOLDS
        else:
            truth = Truth.VACUOUS  # it was not asked after the last failure
        yield JudgedClaim("circuit", f"circuit {edge} {{ opens after {n} failures }}", truth)
    for opening in openings:
        if opening.next_ns is not None and len(openings) == 1:
            held_ms = (opening.next_ns - opening.end_ns) // MS
            for limit_ms, holds in ((held_ms // 2, True), (2 * held_ms, False)):
                text = f"circuit {edge} {{ opens after {opening.failures} failures, holds >= {limit_ms}ms }}"
                yield JudgedClaim("circuit", text, _truth(holds))
