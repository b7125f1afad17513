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

from spanproof.collector.columns import Ints
from spanproof.collector.exchanges import MESSAGE, PAIRED, UNPAIRED
from spanproof.collector.facts import Answer
from spanproof.collector.fresh import Fresh
from spanproof.collector.suspects import Exchange, read_suspects

EXPLICIT: Final = 1
ARRIVALS: Final = 2
INFERRED: Final = 3


@dataclass(frozen=True, slots=True)
class Attempt:
    """One exchange of a call of several; `number` from 1, None where it is no attempt of its own.

    `arrived`: it was seen at the callee alone.
    """

    exchange: Exchange
    call_key: int
    tier: int
    number: int | None
    arrived: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A call of several attempts; its fields are those of the `last`."""

    last: Exchange
    call_key: int
    attempts: int
    tier: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """Spans of one service that answered one client's span; which are attempts at the same, and which is the last."""

    every: tuple[Exchange, ...]
    attempts: frozenset[int]  # by `exchange_key`
    last: Exchange


# By `exchange_key`: the attempt before, and the tier of that.
_Before: TypeAlias = dict[int, tuple[Exchange, int]]


def link_attempts(
    spans: Fresh, exchanges: pa.Table, askers: Ints, max_retry_gap_ns: int
) -> tuple[list[Attempt], list[Call]]:
    """Find which exchanges are attempts at the same, and the calls that they are.

    `askers` has the row of each one's caller. Those that are not among these attempts stand alone: calls of one.
    """
    suspects = read_suspects(spans, exchanges, askers)
    arrivals = {each.exchange_key: group for group in _find_arrivals(suspects) for each in group.every}
    # what a client asked one service is tried once, by the last of what arrived there
    tries = [each for each in suspects if each.exchange_key not in arrivals or arrivals[each.exchange_key].last is each]
    before: _Before = {}
    for group in _group(tries, lambda each: (each.trace, each.callee)):
        counted = _follow_counts(group)
        before |= counted | _follow_failures(group, counted, max_retry_gap_ns)
    linked = set(before) | {each.exchange_key for each, _ in before.values()} | set(arrivals)
    return _join([each for each in tries if each.exchange_key in linked], before, arrivals)


def _find_arrivals(suspects: list[Exchange]) -> Iterator[_Arrivals]:
    """Find what answered one client's span several times.

    Of these, one is a further attempt where the one before it, at the same operation, failed in a way worth another
    try, or was still running.
    """
    paired = [each for each in suspects if each.shape == PAIRED]
    for group in _group(paired, lambda each: (each.client_key, each.callee)):
        if len(group) == 1:
            continue
        group.sort(key=lambda each: (each.server_start_ns, each.server_end_ns))
        attempts = set()
        for same in _group(group, lambda each: each.operation):
            for one, next_ in pairwise(same):
                if one.server_retryable or one.server_end_ns > next_.server_start_ns:
                    attempts |= {one.exchange_key, next_.exchange_key}
        yield _Arrivals(tuple(group), frozenset(attempts), group[-1])


def _follow_counts(group: list[Exchange]) -> _Before:
    """Find the attempt before where a counter says which attempt this is.

    The one before has the same parent, method and callee, and the count before; of several, the last that failed or was
    still running, else the last. It is taken up once. Deliveries of one message are counted by the consumer.
    """
    counts = defaultdict(list)
    for each in group:
        counts[each.parent_id, each.method, each.resend_count].append(each)
    found: _Before = {}
    taken_up = set()
    for each in sorted(group, key=lambda each: (each.start_ns, each.exchange_key)):
        if each.resend_count < 1:
            continue
        candidates = [
            one
            for one in counts[each.parent_id, each.method, each.resend_count - 1]
            if (each.shape != MESSAGE or one.client_key == each.client_key)
            and one.server_start_ns <= each.server_start_ns
            and one.answer != Answer.TRY_OTHERWISE
        ]
        if candidates:
            best = min(
                candidates,
                key=lambda one: (not (one.retryable or one.end_ns > each.start_ns), -one.start_ns, one.exchange_key),
            )
            if best.exchange_key not in taken_up:
                found[each.exchange_key] = (best, EXPLICIT)
                taken_up.add(best.exchange_key)
    return found


def _follow_failures(group: list[Exchange], counted: _Before, max_retry_gap_ns: int) -> _Before:
    """Each retryable failure waits, in the order in which they ended, for the next start at the same target."""
    found: _Before = {}
    taken_up = {one.exchange_key for one, _ in counted.values()}
    candidates = [each for each in group if each.shape in (PAIRED, UNPAIRED) and not each.asynchronous]
    for same in _group(candidates, lambda each: (each.caller_entry, each.parent_id, each.method, each.target)):
        turns = [(each.start_ns, 1, each.exchange_key, each) for each in same if each.exchange_key not in counted]
        turns += [
            (max(each.start_ns, each.end_ns), 2 if each.end_ns <= each.start_ns else 0, each.exchange_key, each)
            for each in same
            if each.retryable and each.exchange_key not in taken_up
        ]
        waiting: deque[tuple[int, Exchange]] = deque()
        for at_ns, phase, key, each in sorted(turns, key=lambda turn: turn[:3]):
            if phase != 1:
                waiting.append((at_ns, each))
            elif waiting:
                ended_ns, failure = waiting.popleft()
                if at_ns - ended_ns <= max_retry_gap_ns:
                    found[key] = (failure, INFERRED)
    return found


def _join(tries: list[Exchange], before: _Before, arrivals: dict[int, _Arrivals]) -> tuple[list[Attempt], list[Call]]:
    """Make calls of attempts that follow each other."""
    after = {one.exchange_key: key for key, (one, _) in before.items()}
    by_key = {each.exchange_key: each for each in tries}
    attempts: list[Attempt] = []
    calls: list[Call] = []
    for first in tries:
        if first.exchange_key in before:
            continue
        chain, tiers = [first], [0]
        while (key := after.get(chain[-1].exchange_key)) is not None:
            chain.append(by_key[key])
            tiers.append(before[key][1])
        seen_there = any(
            each.exchange_key in arrivals[each.exchange_key].attempts for each in chain if each.exchange_key in arrivals
        )
        tier = EXPLICIT if EXPLICIT in tiers else ARRIVALS if seen_there else max(tiers)
        of_call = _list_attempts(first.exchange_key, tier, chain, arrivals)
        attempts += of_call
        calls.append(
            Call(
                max(chain, key=lambda each: (each.start_ns, each.end_ns)),
                first.exchange_key,
                sum(each.number is not None for each in of_call),
                tier,
                min(each.start_ns for each in chain),
                max(each.end_ns for each in chain),
            )
        )
    return attempts, calls


def _list_attempts(call_key: int, tier: int, chain: list[Exchange], arrivals: dict[int, _Arrivals]) -> list[Attempt]:
    """List the exchanges of a call; what is an attempt has a number, in the order of their starts."""
    found: list[tuple[bool, bool, Exchange]] = []  # whether it is an attempt, and was seen at the callee alone
    for each in chain:
        group = arrivals.get(each.exchange_key)
        if group is None:
            found.append((True, False, each))
            continue
        found += [
            (one.exchange_key in group.attempts, True, one)
            for one in group.every
            if one.exchange_key in group.attempts or one is not group.last
        ]
        if each.exchange_key not in group.attempts:
            found.append((not group.attempts, False, each))
    in_order = sorted(
        ((arrived, each) for counts, arrived, each in found if counts),
        key=lambda item: (*item[1].tell_times(arrived=item[0]), item[1].exchange_key),
    )
    numbers = {each.exchange_key: number for number, (_, each) in enumerate(in_order, 1)}
    return [Attempt(each, call_key, tier, numbers.get(each.exchange_key), arrived) for _, arrived, each in found]


def _group(exchanges: Iterable[Exchange], by: Callable[[Exchange], Hashable]) -> Iterable[list[Exchange]]:
    groups: dict[Hashable, list[Exchange]] = {}
    for each in exchanges:
        groups.setdefault(by(each), []).append(each)
    return groups.values()
