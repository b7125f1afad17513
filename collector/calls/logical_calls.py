"""Logical calls: groups the attempts at one request after a failure or a second server span.

Attempts are linked by one of three kinds of evidence, called tiers: 1, a counter in the spans; 2, several server spans
of one service that share a client span; 3, a failure followed by the same request.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import pyarrow as pa

from spanproof.collector.calls.attempts import MESSAGE, PAIRED, UNPAIRED
from spanproof.collector.calls.retry_candidates import RetryCandidate, read_retry_candidates
from spanproof.collector.calls.retryable_failures import is_followed_up
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.storage.arrow_columns import IntArray

TIER_EXPLICIT: Final = 1
TIER_SERVER_SPANS: Final = 2
TIER_INFERRED: Final = 3


@dataclass(frozen=True, slots=True)
class LinkedAttempt:
    """An attempt of a call with several; `number` starts at 1, or is None if the row does not count.

    `arrived`: the attempt was observed only at the callee.
    """

    candidate: RetryCandidate
    call_key: int
    tier: int
    number: int | None
    arrived: bool


@dataclass(frozen=True, slots=True)
class LogicalCall:
    """A call of several attempts; its other fields are those of the `last`."""

    last: RetryCandidate
    call_key: int
    attempts: int
    tier: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class _ServerSpanGroup:
    """Server spans of one service that share one client span; which of them are attempts, and the last one."""

    members: tuple[RetryCandidate, ...]
    attempt_keys: frozenset[int]  # `attempt_key`s
    last: RetryCandidate


# `attempt_key` -> the previous attempt, and the tier of the evidence.
_Predecessors: TypeAlias = dict[int, tuple[RetryCandidate, int]]


def link_attempts(
    spans: SpanBatch, attempt_table: pa.Table, caller_rows: IntArray, max_retry_gap_ns: int
) -> tuple[list[LinkedAttempt], list[LogicalCall]]:
    """Return the attempts that belong to calls of several attempts, and these calls.

    `caller_rows` has the row of each attempt's caller. An attempt that is not in the result is a call of its own.
    """
    candidates = read_retry_candidates(spans, attempt_table, caller_rows)
    server_groups = {each.attempt_key: group for group in _group_server_spans(candidates) for each in group.members}
    # server spans that share a client span are one client-side attempt, represented by the last of them
    client_attempts = [
        each
        for each in candidates
        if each.attempt_key not in server_groups or server_groups[each.attempt_key].last is each
    ]
    predecessors: _Predecessors = {}
    for group in _group_by(client_attempts, lambda each: (each.trace, each.callee)):
        counted = _link_by_counter(group)
        predecessors |= counted | _link_by_failure(group, counted, max_retry_gap_ns)
    linked = set(predecessors) | {each.attempt_key for each, _ in predecessors.values()} | set(server_groups)
    return _build_calls([each for each in client_attempts if each.attempt_key in linked], predecessors, server_groups)


def _group_server_spans(candidates: list[RetryCandidate]) -> Iterator[_ServerSpanGroup]:
    """Yield the groups of server spans that share one client span.

    A server span is a further attempt if the previous one at the same operation failed in a retryable way or was still
    running.
    """
    paired = [each for each in candidates if each.shape == PAIRED]
    for group in _group_by(paired, lambda each: (each.client_key, each.callee)):
        if len(group) == 1:
            continue
        group.sort(key=lambda each: (each.server_start_ns, each.server_end_ns))
        attempts = set()
        for same_operation in _group_by(group, lambda each: each.operation):
            for previous, next_ in pairwise(same_operation):
                if previous.server_retryable or previous.server_end_ns > next_.server_start_ns:
                    attempts |= {previous.attempt_key, next_.attempt_key}
        yield _ServerSpanGroup(tuple(group), frozenset(attempts), group[-1])


def _link_by_counter(group: list[RetryCandidate]) -> _Predecessors:
    """Return the previous attempt of each attempt whose counter is 1 or more.

    The previous attempt has the same parent, method and callee, and a counter one lower. Of several, the last one that
    failed or was still running is chosen, else the last one. An attempt is the predecessor of at most one other. The
    consumer counts the deliveries of one message.
    """
    by_count = defaultdict(list)
    for each in group:
        by_count[each.parent_id, each.method, each.resend_count].append(each)
    predecessors: _Predecessors = {}
    used_keys = set()
    for each in sorted(group, key=lambda each: (each.start_ns, each.attempt_key)):
        if each.resend_count < 1:
            continue
        candidates = [
            previous
            for previous in by_count[each.parent_id, each.method, each.resend_count - 1]
            if (each.shape != MESSAGE or previous.client_key == each.client_key)
            and previous.server_start_ns <= each.server_start_ns
            and not is_followed_up(previous.http_outcome)
        ]
        if candidates:
            best = min(
                candidates,
                key=lambda previous: (
                    not (previous.retryable or previous.end_ns > each.start_ns),
                    -previous.start_ns,
                    previous.attempt_key,
                ),
            )
            if best.attempt_key not in used_keys:
                predecessors[each.attempt_key] = (best, TIER_EXPLICIT)
                used_keys.add(best.attempt_key)
    return predecessors


def _link_by_failure(group: list[RetryCandidate], counted: _Predecessors, max_retry_gap_ns: int) -> _Predecessors:
    """Return the failed attempt before each attempt at the same target.

    Retryable failures form a queue, in the order of their ends. Each start at the same target takes the first one.
    """
    predecessors: _Predecessors = {}
    used_keys = {previous.attempt_key for previous, _ in counted.values()}
    candidates = [each for each in group if each.shape in (PAIRED, UNPAIRED) and not each.asynchronous]
    for same_target in _group_by(
        candidates, lambda each: (each.caller_entry, each.parent_id, each.method, each.target)
    ):
        events = [(each.start_ns, 1, each.attempt_key, each) for each in same_target if each.attempt_key not in counted]
        events += [
            (max(each.start_ns, each.end_ns), 2 if each.end_ns <= each.start_ns else 0, each.attempt_key, each)
            for each in same_target
            if each.retryable and each.attempt_key not in used_keys
        ]
        waiting: deque[tuple[int, RetryCandidate]] = deque()
        for at_ns, event_kind, key, each in sorted(events, key=lambda event: event[:3]):
            if event_kind != 1:
                waiting.append((at_ns, each))
            elif waiting:
                ended_ns, failure = waiting.popleft()
                if at_ns - ended_ns <= max_retry_gap_ns:
                    predecessors[key] = (failure, TIER_INFERRED)
    return predecessors


def _build_calls(
    candidates: list[RetryCandidate], predecessors: _Predecessors, server_groups: dict[int, _ServerSpanGroup]
) -> tuple[list[LinkedAttempt], list[LogicalCall]]:
    """Build calls from the attempts that follow each other."""
    successors = {one.attempt_key: key for key, (one, _) in predecessors.items()}
    by_key = {each.attempt_key: each for each in candidates}
    attempts: list[LinkedAttempt] = []
    calls: list[LogicalCall] = []
    for first in candidates:
        if first.attempt_key in predecessors:
            continue
        chain, tiers = [first], [0]
        while (key := successors.get(chain[-1].attempt_key)) is not None:
            chain.append(by_key[key])
            tiers.append(predecessors[key][1])
        is_server_retry = any(
            each.attempt_key in server_groups[each.attempt_key].attempt_keys
            for each in chain
            if each.attempt_key in server_groups
        )
        tier = TIER_EXPLICIT if TIER_EXPLICIT in tiers else TIER_SERVER_SPANS if is_server_retry else max(tiers)
        call_attempts = _list_attempts(first.attempt_key, tier, chain, server_groups)
        attempts += call_attempts
        calls.append(
            LogicalCall(
                max(chain, key=lambda each: (each.start_ns, each.end_ns)),
                first.attempt_key,
                sum(each.number is not None for each in call_attempts),
                tier,
                min(each.start_ns for each in chain),
                max(each.end_ns for each in chain),
            )
        )
    return attempts, calls


def _list_attempts(
    call_key: int, tier: int, chain: list[RetryCandidate], server_groups: dict[int, _ServerSpanGroup]
) -> list[LinkedAttempt]:
    """Return the attempts of a call; those that count are numbered in the order of their starts."""
    rows: list[tuple[bool, bool, RetryCandidate]] = []  # whether it counts, and whether only the callee observed it
    for each in chain:
        group = server_groups.get(each.attempt_key)
        if group is None:
            rows.append((True, False, each))
            continue
        rows += [
            (member.attempt_key in group.attempt_keys, True, member)
            for member in group.members
            if member.attempt_key in group.attempt_keys or member is not group.last
        ]
        if each.attempt_key not in group.attempt_keys:
            rows.append((not group.attempt_keys, False, each))
    in_order = sorted(
        ((arrived, each) for counts, arrived, each in rows if counts),
        key=lambda item: (*item[1].read_times(at_callee=item[0]), item[1].attempt_key),
    )
    numbers = {each.attempt_key: number for number, (_, each) in enumerate(in_order, 1)}
    return [LinkedAttempt(each, call_key, tier, numbers.get(each.attempt_key), arrived) for _, arrived, each in rows]


def _group_by(
    candidates: Iterable[RetryCandidate], by: Callable[[RetryCandidate], Hashable]
) -> Iterable[list[RetryCandidate]]:
    groups: dict[Hashable, list[RetryCandidate]] = {}
    for each in candidates:
        groups.setdefault(by(each), []).append(each)
    return groups.values()
