"""Finds the attempts that are one logical call: where something failed, or was answered twice.

Attempts belong together by one of three kinds of evidence, its tier: 1, a counter says so; 2, one client's span was
answered several times by a service; 3, a failure was followed by the same again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import pyarrow as pa

from spanproof.collector.calls.attempts import MESSAGE, PAIRED, UNPAIRED
from spanproof.collector.calls.extracted_attributes import HttpOutcome
from spanproof.collector.calls.retry_candidates import RetryCandidate, read_retry_candidates
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.storage.arrow_columns import IntArray

TIER_EXPLICIT: Final = 1
TIER_SERVER_SPANS: Final = 2
TIER_INFERRED: Final = 3


@dataclass(frozen=True, slots=True)
class LinkedAttempt:
    """One exchange of a call of several; `number` from 1, None where it is no attempt of its own.

    `arrived`: it was seen at the callee alone.
    """

    candidate: RetryCandidate
    call_key: int
    tier: int
    number: int | None
    arrived: bool


@dataclass(frozen=True, slots=True)
class LogicalCall:
    """A call of several attempts; its fields are those of the `last`."""

    last: RetryCandidate
    call_key: int
    attempts: int
    tier: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class _ServerSpanGroup:
    """Spans of one service that answered one client's span; which are attempts at the same, and which is the last."""

    members: tuple[RetryCandidate, ...]
    attempt_keys: frozenset[int]  # by `attempt_key`
    last: RetryCandidate


# By `attempt_key`: the attempt before, and the tier of that.
_Predecessors: TypeAlias = dict[int, tuple[RetryCandidate, int]]


def link_attempts(
    spans: SpanBatch, attempt_table: pa.Table, caller_rows: IntArray, max_retry_gap_ns: int
) -> tuple[list[LinkedAttempt], list[LogicalCall]]:
    """Find which exchanges are attempts at the same, and the calls that they are.

    `askers` has the row of each one's caller. Those that are not among these attempts stand alone: calls of one.
    """
    suspects = read_retry_candidates(spans, attempt_table, caller_rows)
    arrivals = {each.attempt_key: group for group in _group_server_spans(suspects) for each in group.members}
    # what a client asked one service is tried once, by the last of what arrived there
    tries = [each for each in suspects if each.attempt_key not in arrivals or arrivals[each.attempt_key].last is each]
    before: _Predecessors = {}
    for group in _group_by(tries, lambda each: (each.trace, each.callee)):
        counted = _link_by_counter(group)
        before |= counted | _link_by_failure(group, counted, max_retry_gap_ns)
    linked = set(before) | {each.attempt_key for each, _ in before.values()} | set(arrivals)
    return _build_calls([each for each in tries if each.attempt_key in linked], before, arrivals)


def _group_server_spans(candidates: list[RetryCandidate]) -> Iterator[_ServerSpanGroup]:
    """Find what answered one client's span several times.

    Of these, one is a further attempt where the one before it, at the same operation, failed in a way worth another
    try, or was still running.
    """
    paired = [each for each in candidates if each.shape == PAIRED]
    for group in _group_by(paired, lambda each: (each.client_key, each.callee)):
        if len(group) == 1:
            continue
        group.sort(key=lambda each: (each.server_start_ns, each.server_end_ns))
        attempts = set()
        for same in _group_by(group, lambda each: each.operation):
            for one, next_ in pairwise(same):
                if one.server_retryable or one.server_end_ns > next_.server_start_ns:
                    attempts |= {one.attempt_key, next_.attempt_key}
        yield _ServerSpanGroup(tuple(group), frozenset(attempts), group[-1])


def _link_by_counter(group: list[RetryCandidate]) -> _Predecessors:
    """Find the attempt before where a counter says which attempt this is.

    The one before has the same parent, method and callee, and the count before; of several, the last that failed or was
    still running, else the last. It is taken up once. Deliveries of one message are counted by the consumer.
    """
    counts = defaultdict(list)
    for each in group:
        counts[each.parent_id, each.method, each.resend_count].append(each)
    found: _Predecessors = {}
    taken_up = set()
    for each in sorted(group, key=lambda each: (each.start_ns, each.attempt_key)):
        if each.resend_count < 1:
            continue
        candidates = [
            one
            for one in counts[each.parent_id, each.method, each.resend_count - 1]
            if (each.shape != MESSAGE or one.client_key == each.client_key)
            and one.server_start_ns <= each.server_start_ns
            and one.answer != HttpOutcome.REDIRECT_OR_CHALLENGE
        ]
        if candidates:
            best = min(
                candidates,
                key=lambda one: (not (one.retryable or one.end_ns > each.start_ns), -one.start_ns, one.attempt_key),
            )
            if best.attempt_key not in taken_up:
                found[each.attempt_key] = (best, TIER_EXPLICIT)
                taken_up.add(best.attempt_key)
    return found


def _link_by_failure(group: list[RetryCandidate], counted: _Predecessors, max_retry_gap_ns: int) -> _Predecessors:
    """Each retryable failure waits, in the order in which they ended, for the next start at the same target."""
    found: _Predecessors = {}
    taken_up = {one.attempt_key for one, _ in counted.values()}
    candidates = [each for each in group if each.shape in (PAIRED, UNPAIRED) and not each.asynchronous]
    for same in _group_by(candidates, lambda each: (each.caller_entry, each.parent_id, each.method, each.target)):
        turns = [(each.start_ns, 1, each.attempt_key, each) for each in same if each.attempt_key not in counted]
        turns += [
            (max(each.start_ns, each.end_ns), 2 if each.end_ns <= each.start_ns else 0, each.attempt_key, each)
            for each in same
            if each.retryable and each.attempt_key not in taken_up
        ]
        waiting: deque[tuple[int, RetryCandidate]] = deque()
        for at_ns, phase, key, each in sorted(turns, key=lambda turn: turn[:3]):
            if phase != 1:
                waiting.append((at_ns, each))
            elif waiting:
                ended_ns, failure = waiting.popleft()
                if at_ns - ended_ns <= max_retry_gap_ns:
                    found[key] = (failure, TIER_INFERRED)
    return found


def _build_calls(
    candidates: list[RetryCandidate], predecessors: _Predecessors, server_groups: dict[int, _ServerSpanGroup]
) -> tuple[list[LinkedAttempt], list[LogicalCall]]:
    """Make calls of attempts that follow each other."""
    after = {one.attempt_key: key for key, (one, _) in predecessors.items()}
    by_key = {each.attempt_key: each for each in candidates}
    attempts: list[LinkedAttempt] = []
    calls: list[LogicalCall] = []
    for first in candidates:
        if first.attempt_key in predecessors:
            continue
        chain, tiers = [first], [0]
        while (key := after.get(chain[-1].attempt_key)) is not None:
            chain.append(by_key[key])
            tiers.append(predecessors[key][1])
        seen_there = any(
            each.attempt_key in server_groups[each.attempt_key].attempt_keys
            for each in chain
            if each.attempt_key in server_groups
        )
        tier = TIER_EXPLICIT if TIER_EXPLICIT in tiers else TIER_SERVER_SPANS if seen_there else max(tiers)
        of_call = _list_attempts(first.attempt_key, tier, chain, server_groups)
        attempts += of_call
        calls.append(
            LogicalCall(
                max(chain, key=lambda each: (each.start_ns, each.end_ns)),
                first.attempt_key,
                sum(each.number is not None for each in of_call),
                tier,
                min(each.start_ns for each in chain),
                max(each.end_ns for each in chain),
            )
        )
    return attempts, calls


def _list_attempts(
    call_key: int, tier: int, chain: list[RetryCandidate], server_groups: dict[int, _ServerSpanGroup]
) -> list[LinkedAttempt]:
    """List the exchanges of a call; what is an attempt has a number, in the order of their starts."""
    found: list[tuple[bool, bool, RetryCandidate]] = []  # whether it is an attempt, and was seen at the callee alone
    for each in chain:
        group = server_groups.get(each.attempt_key)
        if group is None:
            found.append((True, False, each))
            continue
        found += [
            (one.attempt_key in group.attempt_keys, True, one)
            for one in group.members
            if one.attempt_key in group.attempt_keys or one is not group.last
        ]
        if each.attempt_key not in group.attempt_keys:
            found.append((not group.attempt_keys, False, each))
    in_order = sorted(
        ((arrived, each) for counts, arrived, each in found if counts),
        key=lambda item: (*item[1].read_times(at_callee=item[0]), item[1].attempt_key),
    )
    numbers = {each.attempt_key: number for number, (_, each) in enumerate(in_order, 1)}
    return [LinkedAttempt(each, call_key, tier, numbers.get(each.attempt_key), arrived) for _, arrived, each in found]


def _group_by(
    candidates: Iterable[RetryCandidate], by: Callable[[RetryCandidate], Hashable]
) -> Iterable[list[RetryCandidate]]:
    groups: dict[Hashable, list[RetryCandidate]] = {}
    for each in candidates:
        groups.setdefault(by(each), []).append(each)
    return groups.values()
