"""Arrivals: several server spans of one service below one client span, where the retry is below the instrumentation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct

from spanproof.collector.calls.retry_candidates import RetryCandidate
from spanproof.collector.calls.span_pairs import PAIRED


class Arrival(Struct, frozen=True):
    """How an arrival ended for its caller: at the latest when the next one came; None for an unfinished span."""

    start_ns: int
    end_ns: int | None
    failed: bool
    retryable: bool
    responded: bool


class ArrivalGroup(Struct, frozen=True):
    """The server spans of one service below one client span, and which of them are attempts.

    `last` is the last attempt or, where none is one, the last server span.
    """

    members: tuple[RetryCandidate, ...]
    attempt_keys: frozenset[int]
    last: RetryCandidate
    arrivals: dict[int, Arrival]  # by `attempt_key`


def group_arrivals(candidates: list[RetryCandidate]) -> Iterator[ArrivalGroup]:
    """Yield the groups of server spans that share one client span.

    Only SERVER spans below CLIENT spans are attempts. One is a further attempt if the previous one at the same
    operation failed retryably or was still running.
    """
    by_client: defaultdict[tuple[int | None, str], list[RetryCandidate]] = defaultdict(list)
    for each in candidates:
        if each.shape == PAIRED:
            by_client[each.client_key, each.callee].append(each)
    for group in by_client.values():
        if len(group) == 1:
            continue
        group.sort(key=lambda each: (each.arrived_ns, each.server_end_ns or 0, each.attempt_key))
        attempt_keys: set[int] = set()
        arrivals: dict[int, Arrival] = {}
        by_operation: defaultdict[tuple[str, bool | None], list[RetryCandidate]] = defaultdict(list)
        for each in group:
            by_operation[each.operation, each.is_request].append(each)
        for same_operation in by_operation.values():
            for previous, later in pairwise(same_operation):
                is_running = _is_running(previous, later.arrived_ns)
                end_ns = previous.server_end_ns
                if later.is_request and (previous.server_retryable or is_running):
                    attempt_keys |= {previous.attempt_key, later.attempt_key}
                arrivals[previous.attempt_key] = Arrival(
                    previous.arrived_ns,
                    later.arrived_ns if is_running and end_ns is not None else end_ns,
                    failed=is_running or previous.server_failed,
                    retryable=is_running or previous.server_retryable,
                    responded=not is_running,
                )
            arrivals[same_operation[-1].attempt_key] = _conclude_last(same_operation[-1])
        attempts = [each for each in group if each.attempt_key in attempt_keys]
        yield ArrivalGroup(tuple(group), frozenset(attempt_keys), (attempts or group)[-1], arrivals)


def _conclude_last(each: RetryCandidate) -> Arrival:
    """Return how the last arrival ended: with the client span, if that ended without a response."""
    has_response = each.responded or each.http_outcome is not None or each.rpc_outcome is not None
    is_running = each.end_ns is not None and not has_response and _is_running(each, each.end_ns)
    return Arrival(
        each.arrived_ns,
        max(each.end_ns or 0, each.arrived_ns) if is_running else each.server_end_ns,
        failed=is_running or each.server_failed,
        retryable=is_running or each.server_retryable,
        responded=not is_running,
    )


def _is_running(each: RetryCandidate, at_ns: int) -> bool:
    return each.server_end_ns is None or each.server_end_ns > at_ns
