"""Spans that arrive while a proof is carried out: wakes it, and knows whether they may have decided something."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.findings.path_search import resolve_service
from spanproof.assertions.triggers.context import RUN_ID_ATTRIBUTE, TraceContext
from spanproof.collector.storage.store import ArrivedSpans, Store
from spanproof.collector.traces.live_traces import LiveTraces
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.path_segments import list_steps
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    from typing import Self

# Services, of each set of which one at least must have sent spans.
ServiceRequirements: TypeAlias = tuple[frozenset[str], ...]
# By whom, of proofs side by side, each trace was begun.
TraceOwners: TypeAlias = dict[str, object]
# Spans that decide nothing wait so long for the next ones, at most: a third of the shortest time to settle in.
DEBOUNCE_S: Final = 0.1


class ArrivalListener:
    """What has arrived for one proof, the `owner` of traces in `begun`: spans of these, and of traces nobody began."""

    def __init__(self, store: Store, trace_owners: TraceOwners, owner: object) -> None:
        self._store = store
        self._trace_owners = trace_owners
        self._owner = owner
        self._services: frozenset[str] = frozenset()
        self._arrived = threading.Event()
        self._live_traces: LiveTraces | None = None
        self._has_related_traces = False  # other traces may belong to ours
        self.is_own_traces_only = False  # whoever waits asks for our own traces, unless others belong to them

    def __enter__(self) -> Self:
        self._unsubscribe = self._store.subscribe(self._handle_arrival)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._unsubscribe()
        if self._live_traces is not None:
            self._live_traces.close()

    def register_traces(self, contexts: Iterable[TraceContext]) -> None:
        """Take traces for our own; their requests are about to be sent."""
        self._live_traces = self._live_traces or LiveTraces(self._store)
        roots = {each.trace_id: each.span_id for each in contexts}
        self._live_traces.expect_traces(roots)
        self._trace_owners.update(dict.fromkeys(roots, self._owner))

    @property
    def live_traces(self) -> LiveTraces | None:
        """Our own traces as they arrive; None where that is not all, or more than is shown in memory."""
        live = self._live_traces
        return (
            live
            if self.is_own_traces_only and not self._has_related_traces and live is not None and live.is_complete
            else None
        )

    def _handle_arrival(self, arrived: ArrivedSpans) -> None:
        own = any(self._trace_owners.get(trace_id) is self._owner for trace_id in arrived.trace_ids)
        strange = not arrived.trace_ids <= self._trace_owners.keys()
        if self._live_traces is not None:
            if own:
                self._live_traces.add_arrived(arrived)
            self._has_related_traces = self._has_related_traces or (strange and self._is_possibly_related(arrived))
        if own or (strange and self.live_traces is None):
            self._services |= arrived.services
            self._arrived.set()

    def _is_possibly_related(self, arrived: ArrivedSpans) -> bool:
        """Tell whether spans of traces that nobody began link to ours, or bear the id of a request."""
        linked = (self._trace_owners.get(trace_id) is self._owner for trace_id in arrived.linked_trace_ids)
        return RUN_ID_ATTRIBUTE in arrived.attribute_names or any(linked)

    def wake(self) -> None:
        """End a wait."""
        self._arrived.set()

    def acknowledge(self) -> None:
        """Take what has arrived for seen."""
        self._arrived.clear()

    def wait(self, seconds: float) -> bool:
        """Wait for something to arrive; tell whether it did."""
        return self._arrived.wait(max(seconds, 0))

    def is_service_missing(self, required_services: ServiceRequirements) -> bool:
        """Tell whether there is yet to come a service that is known to send spans."""
        known = self._store.services
        return any(each <= known and each.isdisjoint(self._services) for each in required_services)


def find_required_services(expectation: s.Expectation, bindings: Bindings) -> ServiceRequirements:
    """Return which services must have sent spans before a claim can be decided at all, where that can be told.

    A path holds only once it has been gone to its end, a claim that there is something once that is there; neither
    fails before the traces are settled.
    """
    match expectation.claim:
        case s.Path(mode="some") as claim if expectation.share is None:
            wanted = [step.targets for step, _ in list_steps(claim.segment)]
        case s.Some(selection=selection) if expectation.share is None:
            wanted = [(selection.caller if isinstance(selection, s.CallSelection) else selection,)]
        case _:
            return ()
    named = (_resolve_services(targets, bindings) for targets in wanted)
    return tuple(services for services in named if services)


def _resolve_services(targets: Iterable[s.SpanSelection], bindings: Bindings) -> frozenset[str]:
    """Return the services of which one is meant; none where it may be any."""
    names = [resolve_service(target, bindings) for target in targets]
    return frozenset() if None in names else frozenset(name for name in names if name is not None)
