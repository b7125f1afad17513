"""The logical calls that attempts form, with the tier of the evidence."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.otlp.retry_counters import RETRY_COUNTERS
from spanproof.tests.reference.attempts import Try, count_attempts, derive_tries, find_maker
from spanproof.tests.reference.nesting import Nesting
from spanproof.tests.reference.spans import Forest, Span, as_number, as_text, read
from spanproof.tests.reference.targets import (
    address_of,
    asks_again,
    asks_otherwise,
    has_full_url,
    message_of,
    name_target,
    target_of,
    text_of,
)

__all__ = ["Calls", "Logical", "Reading", "Try"]

COUNTED: Final = 1
ARRIVALS: Final = 2
INFERRED: Final = 3
POSSIBLE: Final = 4
# Some starts are recorded in whole milliseconds, and seem to be before the end of what they follow.
WHOLE_MS: Final = 1_000_000


class Reading(Struct, frozen=True):
    """How to read what is not certain: T4 joined or apart, uncertain counters high or low."""

    joined: bool = True
    resent: bool = True


class Logical(Struct, frozen=True, eq=False):
    """A logical call: one or more attempts of the same request, in order of their start.

    ``each`` are its single attempts: the tries, with a try that has several arrivals replaced by these. ``numbers`` are
    the numbers of these; where one is left out, only a counter shows the attempt. ``tiers`` are those of its links.
    ``followed`` are the attempts that a counter or arrivals show to have been followed by another one.
    """

    tries: tuple[Try, ...]
    each: tuple[Try, ...]
    numbers: tuple[int, ...]
    tiers: tuple[int, ...]
    followed: frozenset[Try]
    wrapper: Span | None
    forest: Forest

    @property
    def first(self) -> Try:
        return self.tries[0]

    @property
    def last(self) -> Try:
        return self.each[-1]

    @property
    def start_ns(self) -> int:
        return self.wrapper.start_ns if self.wrapper else self.tries[0].start_ns

    @property
    def end_ns(self) -> int:
        return self.wrapper.end_ns if self.wrapper else self.tries[-1].end_ns

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def error(self) -> bool:
        return self.forest.error(self.wrapper) if self.wrapper else self.tries[-1].error

    @property
    def failed_in_the_end(self) -> bool:
        """Return whether the call failed, as `error_rate` counts: in error, or without a response."""
        return self.error or self.last.no_response

    @property
    def attempts(self) -> int:
        return self.numbers[-1]

    @property
    def tier(self) -> int:
        return max(self.tiers, default=0)

    def failed_retryably(self, one: Try) -> bool:
        return one in self.followed or one.failed_retryably

    @property
    def first_failed(self) -> bool:
        return self.numbers[0] > 1 or self.failed_retryably(self.each[0])


class Calls:
    """All calls of a topology."""

    def __init__(self, forest: Forest, rules: ServiceRules, reading: Reading) -> None:
        self.rules, self.reading = rules, reading
        self.forest = forest
        self.nesting = Nesting(forest)
        self.uncertain: set[str] = set()  # which parts of the reading matter
        self.tries = derive_tries(forest, self.nesting)
        self.attempt_counts = count_attempts(self.tries, forest)
        self.logical = tuple(self._join())
        names = _name_by_answer(self.logical)
        if names:
            self.tries = tuple(replace(one, callee=names.get(one, one.callee)) for one in self.tries)
            self.logical = tuple(self._join())
        self.of = {one: logical for logical in self.logical for one in (*logical.tries, *logical.each)}

    def _join(self) -> Iterable[Logical]:
        in_order = sorted(self.tries, key=lambda one: (one.start_ns, one.end_ns))
        after: dict[Try, tuple[Try, int]] = {}  # the next attempt of each attempt, and the tier
        self._join_messages(in_order, after)
        self._join_counted(in_order, after)
        self._join_inferred(in_order, after)
        followers = {next_ for next_, _ in after.values()}
        for one in in_order:
            if one in followers:
                continue
            chain, tiers, followed = [one], [], set()
            while chain[-1] in after:
                next_, tier = after[chain[-1]]
                tiers.append(tier)
                if tier == COUNTED and not chain[-1].over_ns > next_.start_ns:
                    followed.add(chain[-1].each[-1])
                chain.append(next_)
            each = tuple(attempt for link in chain for attempt in link.each)
            tiers += [ARRIVALS] * (len(each) > len(chain))
            numbers: list[int] = []
            for link in chain:
                followed |= set(link.each[:-1])
                before = self._count_before(link, numbers[-1] if numbers else 0, in_order)
                numbers += range(before + 1, before + len(link.each) + 1)
            tiers += [COUNTED] * (numbers[-1] > len(each))
            yield Logical(
                tuple(chain), each, tuple(numbers), tuple(tiers), frozenset(followed), self._wrapper_of(chain),
                self.forest,
            )  # fmt: skip

    def _wrapper_of(self, chain: list[Try]) -> Span | None:
        """Return the outermost wrapper span whose inner exit spans are this logical call."""
        if any(one.asynchronous and one.server is not None for one in chain):
            return None
        for wrapper in reversed(chain[0].wrappers):
            inner = {one for one in self.tries if wrapper in one.wrappers}
            if inner == set(chain):
                return wrapper
        return None

    # ## T1

    def _join_messages(self, in_order: list[Try], after: dict[Try, tuple[Try, int]]) -> None:
        groups: dict[object, list[Try]] = defaultdict(list)
        for one in in_order:
            identity = message_of(one) if one.asynchronous and one.server is not None else None
            if identity is not None:
                groups[identity, one.callee].append(one)
        for group in groups.values():
            deliveries: dict[Span | None, Try] = {}  # a consumer span with several producers is one delivery
            for one in group:
                deliveries.setdefault(one.server, one)
            for one, next_ in itertools.pairwise(deliveries.values()):
                after[one] = next_, COUNTED

    def _join_counted(self, in_order: list[Try], after: dict[Try, tuple[Try, int]]) -> None:
        followers = {next_ for next_, _ in after.values()}
        for one in in_order:
            count, _ = self._count(one)
            if count <= 0 or one in followers:
                continue
            earlier = self._list_earlier(one, in_order)
            preceding = [other for other in earlier if self._count(other)[0] == count - 1]
            before = _choose_predecessor(one, preceding)
            if before is not None and before not in after:
                after[before] = one, COUNTED

    def _count_before(self, one: Try, seen: int, in_order: list[Try]) -> int:
        """Return the number of attempts before one, of which some are `seen`; a counter may count more.

        A counter also counts requests that were redirected, or sent again with credentials.
        """
        count, kind = self._count(one)
        count -= sum(other.is_redirect for other in self._list_earlier(one, in_order)) if count > 0 else 0
        if count <= seen:
            return seen
        if kind == "resends":
            self.uncertain.add("resent")
            return count if self.reading.resent else seen
        return count

    def _list_earlier(self, one: Try, in_order: list[Try]) -> list[Try]:
        """Return the earlier attempts with a lower count."""
        return [
            other
            for other in in_order
            if other.start_ns < one.start_ns
            and other is not one
            and self._count(other)[0] < self._count(one)[0]
            and self._counted_key(other) == self._counted_key(one)
            and (other.callee == one.callee or other.server is None or one.server is None)
        ]

    def _counted_key(self, one: Try) -> tuple[object, ...]:
        parent = find_maker(one, self.attempt_counts)
        return one.trace_id, parent, one.method, one.caller, one.asynchronous

    def _count(self, one: Try) -> tuple[int, str]:
        """Return the number of earlier attempts that the spans of an attempt report, and what is counted."""
        is_delivery = one.asynchronous and one.server is not None
        spans = (
            *((one.server,) if is_delivery else ()),
            one.exit,
            *(wrapper for wrapper in one.wrappers if self._is_last_inside(one, wrapper)),
            *(self.forest.sidecars_above(one.server) if one.server is not None else ()),
            one.server,
        )
        return next((count for span in spans if span is not None and (count := _read_count(span))), (0, ""))

    def _is_last_inside(self, one: Try, wrapper: Span) -> bool:
        exits = {other.exit for other in self.tries if wrapper in other.wrappers and other.exit is not None}
        return one.exit is max(exits, key=lambda span: span.start_ns, default=None)

    # ## T3 and T4

    def _join_inferred(self, in_order: list[Try], after: dict[Try, tuple[Try, int]]) -> None:
        for one in sorted(in_order, key=lambda one: (one.over_ns, one.start_ns)):
            if one in after or one.is_redirect or not one.each[-1].failed_retryably:
                continue
            taken = {next_ for next_, _ in after.values()}
            later = [
                other
                for other in in_order
                if other is not one
                and other.start_ns >= one.start_ns
                and _is_later(one, other)
                and other.start_ns - max(one.over_ns, one.start_ns) <= self.rules.max_retry_gap_ns
                and other not in taken
                and self._is_same_request(one, other)
            ]
            if not later:
                continue
            tier = self._tier(one, later[0])
            if tier == POSSIBLE:
                call = one.caller, later[0].callee
                if _is_declared(call, self.rules.distinct_calls):
                    continue
                if not _is_declared(call, self.rules.retried_calls):
                    self.uncertain.add("joined")
                    if not self.reading.joined:
                        continue
            after[one] = later[0], tier

    def _is_same_request(self, one: Try, other: Try) -> bool:
        if self._call_key(one) != self._call_key(other) or asks_otherwise(one, other):
            return False
        both = one.server is not None and other.server is not None
        if both and one.callee != other.callee:
            return False
        if one.protocol == other.protocol:
            return target_of(one, with_address=not both) == target_of(other, with_address=not both)
        names = name_target(one), name_target(other)  # an attempt that records no protocol may have any
        addresses = address_of(one.primary_span), address_of(other.primary_span)
        return (
            "other" in (one.protocol, other.protocol)
            and names[0] == names[1]
            and (both or addresses[0] == addresses[1])
        )

    def _tier(self, one: Try, other: Try) -> int:
        if one.protocol == "http" and not (has_full_url(one.primary_span) and has_full_url(other.primary_span)):
            return POSSIBLE
        return INFERRED if asks_again(one, other) else POSSIBLE

    def _call_key(self, one: Try) -> tuple[object, ...]:
        parent = find_maker(one, self.attempt_counts)
        return one.trace_id, parent, instance_of(one), one.method, one.asynchronous


def _name_by_answer(calls: Iterable[Logical]) -> dict[Try, str]:
    """Return the unanswered attempts that have another name than the answered ones of their calls, and that name."""
    names = {}
    for call in calls:
        answered = [one.callee for one in call.tries if one.server is not None]
        for one in call.tries:
            names_callee = text_of(one.naming_span, "service.peer.name") is not None
            if answered and one.server is None and not names_callee and one.callee != answered[-1]:
                names[one] = answered[-1]
    return names


def _is_declared(call: tuple[str, str], declared: tuple[str, ...]) -> bool:
    """Return whether a declaration such as `orders -> *` is about a call."""
    return any(
        all(word.strip().strip('"') in ("*", name) for word, name in zip(text.split("->"), call, strict=True))
        for text in declared
    )


def _is_later(one: Try, other: Try) -> bool:
    """Return whether an attempt started after another one was over."""
    imprecision_ns = WHOLE_MS if other.start_ns - one.start_ns >= WHOLE_MS else 1
    return other.start_ns - max(one.over_ns, one.start_ns) > -imprecision_ns


def instance_of(one: Try) -> object:
    """Return the caller's instance."""
    span = one.exit or one.below
    if span is None:
        return one.caller
    return instance_of_span(span)


def instance_of_span(span: Span) -> object:
    id_ = as_text(read(span.resource, "service.instance.id"))
    host, pid = as_text(read(span.resource, "host.name")), as_text(read(span.resource, "process.pid"))
    return span.service, id_ or ((host, pid) if host and pid else None)


def _read_count(span: Span) -> tuple[int, str] | None:
    """Return the number of earlier attempts that a span reports (T1), and what is counted."""
    for name, kind in RETRY_COUNTERS.items():
        value = read({name: span.attributes.get(name, "")}, name)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        count = as_number(value)
        if count is not None:
            return int(count) - (kind == "attempts"), kind
    return None


def _choose_predecessor(one: Try, preceding: list[Try]) -> Try | None:
    """Return the last attempt that failed or was still running, else the last; never a redirect."""
    earlier = [other for other in preceding if not other.is_redirect]
    likely = [other for other in earlier if other.failed_retryably or other.over_ns > one.start_ns]
    return next(reversed(likely or earlier), None)


def list_open_readings(uncertain: Iterable[str]) -> Iterator[Reading]:
    """Yield each reading of what is uncertain."""
    uncertain = set(uncertain)
    for joined in (True, False) if "joined" in uncertain else (True,):
        for resent in (True, False) if "resent" in uncertain else (True,):
            yield Reading(joined, resent)
