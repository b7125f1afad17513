"""Spans that arrive while a proof is carried out: wakes it, and knows whether they may have decided something."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.paths import fill_service
from spanproof.collector.store import Arrived, Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings
from spanproof.query_lang.legs import steps_of

if TYPE_CHECKING:
    from typing import Self

# Services, of each set of which one at least must have sent spans.
Needs: TypeAlias = tuple[frozenset[str], ...]
# By whom, of proofs side by side, each trace was begun.
Begun: TypeAlias = dict[str, object]
# Spans that decide nothing wait so long for the next ones, at most: a third of the shortest time to settle in.
LULL_S: Final = 0.1


class Arrivals:
    """What has arrived for one proof, the `owner` of traces in `begun`: spans of these, and of traces nobody began."""

    def __init__(self, store: Store, begun: Begun, owner: object) -> None:
        self._store = store
        self._begun = begun
        self._owner = owner
        self._services: frozenset[str] = frozenset()
        self._woken = threading.Event()

    def __enter__(self) -> Self:
        self._unsubscribe = self._store.subscribe(self._hear)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._unsubscribe()

    def _hear(self, arrived: Arrived) -> None:
        if any(self._begun.get(trace_id, self._owner) is self._owner for trace_id in arrived.trace_ids):
            self._services |= arrived.services
            self._woken.set()

    def wake(self) -> None:
        """End a wait."""
        self._woken.set()

    def begin_look(self) -> None:
        """Take what has arrived for seen."""
        self._woken.clear()

    def wait(self, seconds: float) -> bool:
        """Wait for something to arrive; tell whether it did."""
        return self._woken.wait(max(seconds, 0))

    def lack(self, needs: Needs) -> bool:
        """Tell whether there is yet to come a service that is known to send spans."""
        known = self._store.services
        return any(each <= known and each.isdisjoint(self._services) for each in needs)


def find_needs(expectation: s.Expectation, bindings: Bindings) -> Needs:
    """Return which services must have sent spans before a claim can be decided at all, where that can be told.

    A path holds only once it has been gone to its end, and does not hold only once the traces are settled.
    """
    claim = expectation.claim
    if not isinstance(claim, s.Path) or claim.mode != "some" or expectation.share is not None:
        return ()
    steps = (_name_services(step.targets, bindings) for step, _ in steps_of(claim.leg))
    return tuple(services for services in steps if services)


def _name_services(targets: Iterable[s.Target], bindings: Bindings) -> frozenset[str]:
    """Return the services of which one is meant; none where it may be any."""
    names = [fill_service(target, bindings) for target in targets]
    return frozenset() if None in names else frozenset(name for name in names if name is not None)
