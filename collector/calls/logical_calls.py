"""Logical calls: groups the attempts at one request, by the tiers of evidence in `retry_evidence`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Final, TypeAlias

import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from spanproof.collector.calls.arrivals import group_arrivals
from spanproof.collector.calls.retry_candidates import (
    RetryCandidate,
    count_rpc_attempts,
    group_by,
    read_retry_candidates,
)
from spanproof.collector.calls.retry_evidence import Tier, compare_requests
from spanproof.collector.calls.retryable_failures import is_followed_up
from spanproof.collector.calls.span_pairs import MESSAGE, PAIRED, UNPAIRED, SpanPairs
from spanproof.collector.topology.nesting import Nesting
from spanproof.collector.topology.span_batch import SpanBatch

# Why it is open how many attempts a call has: nothing records that the same thing was asked for; a counter also counts
# redirects, and the earlier spans are missing; or a failed attempt never ended, perhaps not before the next one.
POSSIBLE, REDIRECTS, UNENDED = "possible", "redirects", "unended"
POSSIBLE_UNENDED: Final = "possible unended"


class LinkedAttempt(Struct, frozen=True):
    """An attempt of a call with several; `number` starts at 1, or is None if the row does not count.

    `arrived`: the attempt was observed only at the callee.
    """

    candidate: RetryCandidate
    call_key: int
    tier: int
    number: int | None
    arrived: bool
    first: RetryCandidate  # the call belongs to the caller of this attempt
    start_ns: int
    end_ns: int | None
    retryable: bool
    failed: bool
    responded: bool | None


class LogicalCall(Struct, frozen=True):
    """A call of several attempts; its other fields are those of the `last`, and its caller is that of the `first`.

    `ends_with_arrival`: the last attempt was observed only at the callee. `is_cut`: it got no response.
    """

    first: RetryCandidate
    last: RetryCandidate
    call_key: int
    attempts: int
    tier: int
    doubt: str | None
    start_ns: int
    end_ns: int | None
    wrapper: int | None  # row of the wrapper span around exactly this call
    kept_apart: str | None
    ends_with_arrival: bool
    is_cut: bool


class LinkedCalls(Struct, frozen=True):
    """Calls of several attempts, as two readings: the attempts in doubt are one call (`joined`), or not (`apart`)."""

    joined: tuple[list[LinkedAttempt], list[LogicalCall]]
    apart: tuple[list[LinkedAttempt], list[LogicalCall]]


# `attempt_key` -> the previous attempt, and the tier of the evidence.
_Predecessors: TypeAlias = dict[int, tuple[RetryCandidate, Tier]]
_NEVER: Final = float("inf")
_MILLISECOND_NS: Final = 1_000_000


def link_attempts(
    spans: SpanBatch, nesting: Nesting, pairs: SpanPairs, attempt_table: pa.Table, max_retry_gap_ns: int
) -> LinkedCalls:
    """Return the attempts that belong to calls of several attempts, and these calls.

    An attempt that is not in the result is a call of its own.
    """
    candidates = read_retry_candidates(spans, nesting, pairs, attempt_table)
    if not candidates:
        return LinkedCalls(([], []), ([], []))
    return _CallBuilder(candidates, nesting, max_retry_gap_ns).build()


class _CallBuilder:
    def __init__(self, candidates: list[RetryCandidate], nesting: Nesting, max_retry_gap_ns: int) -> None:
        self.arrivals = {each.attempt_key: group for group in group_arrivals(candidates) for each in group.members}
        # arrivals of one client span are one client-side attempt, represented by the last of them
        self.client_attempts = [
            each
            for each in candidates
            if each.attempt_key not in self.arrivals or self.arrivals[each.attempt_key].last is each
        ]
        self.by_key = {each.attempt_key: each for each in self.client_attempts}
        self.nesting = nesting
        self.max_retry_gap_ns = max_retry_gap_ns
        self.predecessors: _Predecessors = {}
        self.followed: set[int] = set()  # attempts that have a successor
        self.unended: set[int] = set()  # attempts whose predecessor has no end
        self.kept_apart: dict[int, str] = {}
        self.redirects: Counter[int] = Counter()  # attempt -> redirects and challenges that its counter counts

    def build(self) -> LinkedCalls:
        """Link the attempts, and build the calls."""
        for group in group_by(
            (each for each in self.client_attempts if each.message_key is not None),
            lambda each: (each.trace, each.message_key),
        ):
            self._link_deliveries(group)
        for group in group_by(self.client_attempts, lambda each: (each.trace, each.caller, each.logical_parent)):
            self._link_by_counter(group)
            self._link_by_failure(group)
        chains = self._build_chains(self.predecessors)
        calls = [self._build_call(chain, counts_unseen=True) for chain in chains]
        known = {
            key: link
            for key, link in self.predecessors.items()
            if link[1] is not Tier.POSSIBLE and key not in self.unended
        }
        apart = [
            (attempts, replace(part, doubt=call.doubt))
            for joined, (_, call) in zip(chains, calls, strict=True)
            if call.doubt is not None
            for chain in self._split(joined, known)
            for attempts, part in [self._build_call(chain, counts_unseen=False)]
        ]
        return LinkedCalls(_concatenate(calls), _concatenate(apart))

    def _link(self, previous: RetryCandidate, later: RetryCandidate, tier: Tier) -> None:
        self.predecessors[later.attempt_key] = (previous, tier)
        self.followed.add(previous.attempt_key)

    def _link_deliveries(self, group: list[RetryCandidate]) -> None:
        """Link the deliveries of one message to one service; a consumer span with several producers is one of them."""
        group.sort(key=lambda each: (each.arrived_ns, each.client_key or 0, each.attempt_key))
        deliveries: dict[int | None, RetryCandidate] = {}
        for each in group:
            deliveries.setdefault(each.server_key, each)
        for previous, later in pairwise(deliveries.values()):
            self._link(previous, later, Tier.EXPLICIT)

    def _link_by_counter(self, group: list[RetryCandidate]) -> None:
        """Link each attempt whose counter is 1 or more to the attempt before it."""
        counts = count_rpc_attempts(group)
        in_order = sorted(group, key=lambda each: (each.start_ns, each.attempt_key))
        for each in in_order:
            count = counts.get(each.attempt_key, each.attempts_before) or 0
            if count < 1 or each.attempt_key in self.predecessors:
                continue
            earlier = [
                previous
                for previous in in_order
                if previous is not each
                and (counts.get(previous.attempt_key, previous.attempts_before) or 0) < count
                and previous.identity.method == each.identity.method
                and previous.arrived_ns <= each.arrived_ns
                and (previous.callee == each.callee or not (previous.is_answered and each.is_answered))
                and (MESSAGE not in (each.shape, previous.shape) or previous.client_key == each.client_key)
            ]
            self.redirects[each.attempt_key] = sum(is_followed_up(previous.http_outcome) for previous in earlier)
            candidates = [
                previous
                for previous in earlier
                if not is_followed_up(previous.http_outcome)
                and previous.attempt_key not in self.followed
                and (counts.get(previous.attempt_key, previous.attempts_before) or 0) == count - 1
            ]
            if candidates:
                best = max(
                    candidates,
                    key=lambda previous: (
                        previous.retryable or (previous.end_ns or _NEVER) > each.start_ns,
                        previous.start_ns,
                        -previous.attempt_key,
                    ),
                )
                self._link(best, each, Tier.EXPLICIT)

    def _link_by_failure(self, group: list[RetryCandidate]) -> None:
        """Link each attempt to a failed one that was over before it and may have asked for the same.

        Failures wait in the order of their ends, unfinished ones by their starts. Each start takes the one with the
        best evidence, or else the first.
        """
        waiting = sorted(
            (each for each in group if each.retryable and self._is_open(each)),
            key=lambda each: (each.start_ns if each.over_ns is None else each.over_ns, each.attempt_key),
        )
        for later in sorted(group, key=lambda each: (each.start_ns, each.attempt_key)):
            if later.attempt_key in self.predecessors:
                continue
            matches: list[tuple[Tier, RetryCandidate]] = []
            for failed in waiting:
                if failed is later or not _may_share_protocol(failed, later) or not self._is_in_time(failed, later):
                    continue
                result = compare_requests(failed, later)
                if isinstance(result, Tier):
                    matches.append((result, failed))
                elif failed.operation == later.operation or failed.callee == later.callee:
                    self.kept_apart.setdefault(failed.attempt_key, result)
            if matches:
                tier, failed = min(matches, key=lambda match: match[0])
                waiting.remove(failed)
                self._link(failed, later, tier)
                if failed.over_ns is None:
                    self.unended.add(later.attempt_key)

    def _is_open(self, each: RetryCandidate) -> bool:
        return each.attempt_key not in self.followed

    def _is_in_time(self, failed: RetryCandidate, later: RetryCandidate) -> bool:
        over_ns = max(failed.over_ns or 0, failed.start_ns)
        if failed.start_ns == later.start_ns and failed.attempt_key > later.attempt_key:
            return False  # of two instants at one time, the first one comes first
        # some SDKs record starts in whole milliseconds: a retry without delay seems to start before the failure ended
        imprecision_ns = _MILLISECOND_NS if later.start_ns - failed.start_ns >= _MILLISECOND_NS else 1
        return -imprecision_ns < later.start_ns - over_ns <= self.max_retry_gap_ns

    def _build_chains(self, predecessors: _Predecessors) -> list[list[RetryCandidate]]:
        """Return the attempts of each call, in order; also single attempts with arrivals or counters of their own."""
        successors = {previous.attempt_key: key for key, (previous, _) in predecessors.items()}
        return [
            chain
            for first in self.client_attempts
            if first.attempt_key not in predecessors
            for chain in [self._follow(first, successors)]
            if len(chain) > 1
            or first.attempt_key in self.arrivals
            or first.attempts_before
            or first.attempt_key in self.kept_apart
        ]

    def _follow(self, first: RetryCandidate, successors: Mapping[int, int]) -> list[RetryCandidate]:
        chain = [first]
        while (key := successors.get(chain[-1].attempt_key)) is not None:
            chain.append(self.by_key[key])
        return chain

    def _split(self, chain: list[RetryCandidate], known: _Predecessors) -> list[list[RetryCandidate]]:
        """Split a call where it is only possible that attempts belong together."""
        parts: list[list[RetryCandidate]] = []
        for each in chain:
            if each.attempt_key in known:
                parts[-1].append(each)
            else:
                parts.append([each])
        return parts

    def _build_call(
        self, chain: list[RetryCandidate], *, counts_unseen: bool
    ) -> tuple[list[LinkedAttempt], LogicalCall]:
        """Build a call. `counts_unseen`: a counter that also counts redirects counts attempts without spans."""
        tiers = {self.predecessors[each.attempt_key][1] for each in chain[1:]}
        have_arrivals = [
            each.attempt_key in self.arrivals and bool(self.arrivals[each.attempt_key].attempt_keys) for each in chain
        ]
        rows = self._list_rows(chain)
        numbers, doubt = self._number(rows, counts_unseen=counts_unseen)
        if any(numbers[each.attempt_key] > position for position, each in enumerate(_list_counted(rows), 1)):
            tiers.add(Tier.EXPLICIT)
        if Tier.POSSIBLE in tiers:
            tier, doubt = Tier.POSSIBLE, POSSIBLE
        elif Tier.EXPLICIT in tiers:
            tier = Tier.EXPLICIT
        elif any(have_arrivals):
            tier = Tier.ARRIVALS
        else:
            tier = max(tiers, default=Tier.SINGLE)
        if any(each.attempt_key in self.unended for each in chain):
            doubt = POSSIBLE_UNENDED if doubt == POSSIBLE else doubt or UNENDED
        call_key = chain[0].attempt_key
        last = chain[-1]
        attempts = [
            self._make_attempt(each, call_key, tier, numbers.get(each.attempt_key), chain, arrived=arrived)
            for _, arrived, each in rows
        ]
        call = LogicalCall(
            first=chain[0],
            last=last,
            call_key=call_key,
            attempts=max(numbers.values(), default=1),
            tier=tier,
            doubt=doubt,
            start_ns=min(each.start_ns for each in chain),
            end_ns=None if last.end_ns is None else max(each.end_ns or 0 for each in chain),
            wrapper=self._find_wrapper(chain),
            kept_apart=self.kept_apart.get(last.attempt_key) if last.retryable else None,
            ends_with_arrival=have_arrivals[-1],
            is_cut=have_arrivals[-1] and not self.arrivals[last.attempt_key].arrivals[last.attempt_key].responded,
        )
        return attempts, call

    def _list_rows(self, chain: list[RetryCandidate]) -> list[tuple[bool, bool, RetryCandidate]]:
        """Return the rows of a call: whether it counts as an attempt, and whether only the callee observed it."""
        rows: list[tuple[bool, bool, RetryCandidate]] = []
        for each in chain:
            group = self.arrivals.get(each.attempt_key)
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
        return rows

    def _number(
        self, rows: list[tuple[bool, bool, RetryCandidate]], *, counts_unseen: bool
    ) -> tuple[dict[int, int], str | None]:
        """Return the number of each attempt, and the doubt about it. A counter also counts attempts without spans."""
        numbers: dict[int, int] = {}
        doubt, number = None, 0
        for each in _list_counted(rows):
            number += 1
            counted = 1 + (each.attempts_before or 0) - self.redirects[each.attempt_key]
            if counted > number and each.counts_redirects:
                doubt = REDIRECTS
                number = counted if counts_unseen else number
            number = number if each.counts_redirects else max(number, counted)
            numbers[each.attempt_key] = number
        return numbers, doubt

    def _make_attempt(
        self,
        each: RetryCandidate,
        call_key: int,
        tier: int,
        number: int | None,
        chain: list[RetryCandidate],
        *,
        arrived: bool,
    ) -> LinkedAttempt:
        if arrived:
            arrival = self.arrivals[each.attempt_key].arrivals[each.attempt_key]
            return LinkedAttempt(
                each, call_key, tier, number, True, chain[0],
                arrival.start_ns, arrival.end_ns, arrival.retryable, arrival.failed, arrival.responded,
            )  # fmt: skip
        position = chain.index(each)
        successor = chain[position + 1] if position + 1 < len(chain) else None
        is_repeated = successor is not None and (
            self.predecessors[successor.attempt_key][1] is Tier.EXPLICIT
            and (each.over_ns or _NEVER) <= successor.start_ns
        )
        return LinkedAttempt(
            each, call_key, tier, number, False, chain[0],
            each.start_ns, each.end_ns, each.retryable or is_repeated, each.failed, each.responded,
        )  # fmt: skip

    def _find_wrapper(self, chain: list[RetryCandidate]) -> int | None:
        """Return the outermost wrapper span around exactly the attempts of this call."""
        if chain[0].shape not in (PAIRED, UNPAIRED):
            return None
        common = [wrapper for wrapper in chain[0].wrappers if all(wrapper in each.wrappers for each in chain)]
        count = len({each.exit_row for each in chain})
        return next((wrapper for wrapper in reversed(common) if self.nesting.inner_counts[wrapper] == count), None)


def _may_share_protocol(first: RetryCandidate, second: RetryCandidate) -> bool:
    """Return whether two attempts have the same protocol; one that records none may have any."""
    return first.protocol == second.protocol or "other" in (first.protocol, second.protocol)


def _list_counted(rows: list[tuple[bool, bool, RetryCandidate]]) -> list[RetryCandidate]:
    """Return the rows that count as attempts, in the order of their starts at whoever observed them."""
    in_order = sorted(
        (
            (each.arrived_ns if arrived else each.start_ns, each.attempt_key, each)
            for counts, arrived, each in rows
            if counts
        ),
        key=lambda item: item[:2],
    )
    return [each for *_, each in in_order]


def _concatenate(
    calls: list[tuple[list[LinkedAttempt], LogicalCall]],
) -> tuple[list[LinkedAttempt], list[LogicalCall]]:
    return [attempt for attempts, _ in calls for attempt in attempts], [call for _, call in calls]
