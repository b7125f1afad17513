"""Spans that arrive while a proof is carried out: wakes it, and knows whether they may have decided something."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.paths import fill_service
from spanproof.assertions.triggers.context import RUN_ID, TraceContext
from spanproof.collector.live import LiveTraces
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
        self._live: LiveTraces | None = None
        self._tied = False  # other traces may belong to ours
        self.own_only = False  # whoever waits asks for our own traces, unless others belong to them

    def __enter__(self) -> Self:
        self._unsubscribe = self._store.subscribe(self._hear)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._unsubscribe()
        if self._live is not None:
            self._live.close()

    def begin(self, contexts: Iterable[TraceContext]) -> None:
        """Take traces for our own; their requests are about to be sent."""
        self._live = self._live or LiveTraces(self._store)
        roots = {each.trace_id: each.span_id for each in contexts}
        self._live.expect(roots)
        self._begun.update(dict.fromkeys(roots, self._owner))

    @property
    def live(self) -> LiveTraces | None:
        """Our own traces as they arrive; None where that is not all, or more than is shown in memory."""
        live = self._live
        return live if self.own_only and not self._tied and live is not None and live.whole else None

    def _hear(self, arrived: Arrived) -> None:
        own = any(self._begun.get(trace_id) is self._owner for trace_id in arrived.trace_ids)
        strange = not arrived.trace_ids <= self._begun.keys()
        if self._live is not None:
            if own:
                self._live.take(arrived)
            self._tied = self._tied or (strange and self._may_belong(arrived))
        if own or (strange and self.live is None):
            self._services |= arrived.services
            self._woken.set()

    def _may_belong(self, arrived: Arrived) -> bool:
        """Tell whether spans of traces that nobody began link to ours, or bear the id of a request."""
        linked = (self._begun.get(trace_id) is self._owner for trace_id in arrived.linked_trace_ids)
        return RUN_ID in arrived.attribute_names or any(linked)

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

    A path holds only once it has been gone to its end, a claim that there is something once that is there; neither
    fails before the traces are settled.
    """
    match expectation.claim:
        case s.Path(mode="some") as claim if expectation.share is None:
            wanted = [step.targets for step, _ in steps_of(claim.leg)]
        case s.Some(selection=selection) if expectation.share is None:
            wanted = [(selection.caller if isinstance(selection, s.Call) else selection,)]
        case _:
            return ()
    named = (_name_services(targets, bindings) for targets in wanted)
    return tuple(services for services in named if services)


def _name_services(targets: Iterable[s.Target], bindings: Bindings) -> frozenset[str]:
    """Return the services of which one is meant; none where it may be any."""
    names = [fill_service(target, bindings) for target in targets]
    return frozenset() if None in names else frozenset(name for name in names if name is not None)
