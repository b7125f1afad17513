"""The service in which a difference to the baseline arose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import pytest

from spanproof.assertions.explain.likely_cause import LikelyCause, find_likely_causes
from spanproof.tests.reference.generate import TraceSet
from spanproof.tests.reference.spans import CLIENT, SERVER, Span
from spanproof.tests.reference.store_traces import open_judge

MS = 1_000_000
CALLEES = ("cart", "catalog", "pay")


class Shop:
    """A web service that calls three others, 40 times in each window."""

    def __init__(self) -> None:
        self.traces = TraceSet()
        self.numbers = count(1)

    def add_window(
        self,
        is_baseline: bool,
        *,
        own: Mapping[str, int] | None = None,
        network: Mapping[str, int] | None = None,
        failing: tuple[str, ...] = (),
        lost: tuple[str, ...] = (),
        calls: Mapping[str, int] | None = None,
    ) -> None:
        """Add traces: with more milliseconds of own time or network, failing or lost callees, other calls."""
        own, network, calls = own or {}, network or {}, calls or {}
        for index in range(40):
            noise = index % 5
            trace_id = f"{next(self.numbers):032x}"
            (self.traces.baseline if is_baseline else self.traces.settled)[trace_id] = True
            at = 5
            children = []
            for callee in CALLEES:
                for _ in range(calls.get(callee, 1)):
                    inner = 10 + noise + own.get(callee, 0)
                    outer = inner + 2 + network.get(callee, 0)
                    children.append((callee, at, outer, inner))
                    at += outer + 1
            root = self._add(
                trace_id, None, "web", SERVER, 0, at + 5 + noise + own.get("web", 0), error=bool(failing or lost)
            )
            for callee, start, outer, inner in children:
                client = self._add(
                    trace_id, root, "web", CLIENT, start, outer, error=callee in (*failing, *lost), address=callee
                )
                self._add(trace_id, client, callee, SERVER, start + 1, inner, error=callee in failing)

    def _add(
        self, trace_id: str, parent: Span | None, service: str, kind: int, start: int, ms: int, *, error: bool,
        address: str = "",
    ) -> Span:  # fmt: skip
        span = Span(
            trace_id, f"{next(self.numbers):016x}", parent and parent.span_id, service, "GET /", kind, start * MS,
            (start + ms) * MS, status=2 if error else 0, attributes={"server.address": address} if address else {},
        )  # fmt: skip
        self.traces.spans.append(span)
        return span

    def find(self) -> tuple[LikelyCause, ...]:
        with open_judge(self.traces) as judge:
            return find_likely_causes(judge.connection, "selected")


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    shop.add_window(True)
    return shop


def test_unchanged_services_are_no_cause(shop: Shop) -> None:
    shop.add_window(False)
    assert shop.find() == ()


def test_callers_of_a_slow_service_are_no_cause(shop: Shop) -> None:
    shop.add_window(False, own={"pay": 80})
    (cause,) = shop.find()
    assert (cause.service, cause.reason) == ("pay", "own time 92ms against 12ms")


def test_slow_network_to_one_service_is_its_own(shop: Shop) -> None:
    shop.add_window(False, network={"pay": 80})
    cause, *_ = shop.find()
    assert (cause.service, cause.reason) == ("pay", "network `web -> pay 82ms against 2ms`")


def test_slow_network_to_all_services_is_that_of_their_caller(shop: Shop) -> None:
    shop.add_window(False, network=dict.fromkeys(CALLEES, 80))
    cause, *_ = shop.find()
    assert cause.service == "web"
    assert cause.reason.startswith("network `web -> ")


def test_errors_belong_to_the_service_that_no_callee_excuses(shop: Shop) -> None:
    shop.add_window(False, failing=("cart",))
    (cause,) = shop.find()
    assert (cause.service, cause.reason) == ("cart", "errors of its own 100% against 0%")


def test_calls_that_fail_on_the_way_belong_to_the_callee(shop: Shop) -> None:
    shop.add_window(False, lost=("cart",))
    cause, *_ = shop.find()
    assert (cause.service, cause.reason) == ("cart", "calls that fail on the way `web -> cart 100%`")


def test_calls_that_vanished_or_multiplied_are_those_of_the_caller(shop: Shop) -> None:
    shop.add_window(False, calls={"cart": 0, "pay": 3})
    (cause,) = shop.find()
    assert cause.service == "web"
    assert "`cart 0 times against 1`" in cause.reason
    assert "`pay 3 times against 1`" in cause.reason
