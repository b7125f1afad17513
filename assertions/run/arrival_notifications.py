"""Notifications about arriving spans: they wake a running proof if the spans may decide an open claim."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.findings.path_search import resolve_service
from spanproof.assertions.triggers.context import RUN_ID_ATTRIBUTE, TraceContext
from spanproof.collector.storage.interface import SpanStore
from spanproof.collector.storage.store import ArrivedSpans
from spanproof.collector.traces.live_traces import LiveTraces
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.compile.path_segments import list_steps
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    from typing import Self

# Sets of services; at least one service of each set must have sent spans.
ServiceRequirements: TypeAlias = tuple[frozenset[str], ...]
# The owner (a proof run) of each trace id, for proofs that run in parallel.
TraceOwners: TypeAlias = dict[str, object]
# Longest delay after spans that decide nothing: a third of the shortest settle time.
DEBOUNCE_S: Final = 0.1


class ArrivalListener:
    """Listener for the spans of one proof, the `owner`: spans of its traces and of traces without an owner."""

    def __init__(self, store: SpanStore, trace_owners: TraceOwners, owner: object) -> None:
        self._store = store
        self._trace_owners = trace_owners
        self._owner = owner
        self._services: frozenset[str] = frozenset()
        self._arrived = threading.Event()
        self._live_traces: LiveTraces | None = None
        self._has_related_traces = False  # traces without an owner may belong to our own traces
        self.is_own_traces_only = False  # the claims concern only our own traces and related ones

    def __enter__(self) -> Self:
        self._unsubscribe = self._store.subscribe(self._handle_arrival)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._unsubscribe()
        if self._live_traces is not None:
            self._live_traces.close()

    def register_traces(self, contexts: Iterable[TraceContext]) -> None:
        """Register traces as our own, before their requests are sent."""
        self._live_traces = self._live_traces or LiveTraces(self._store)
        roots = {each.trace_id: each.span_id for each in contexts}
        self._live_traces.expect_traces(roots)
        self._trace_owners.update(dict.fromkeys(roots, self._owner))

    @property
    def live_traces(self) -> LiveTraces | None:
        """Our own traces as they arrive; None if other traces matter too, or if they do not fit in memory."""
        live = self._live_traces
        return (
            live
            if self.is_own_traces_only and not self._has_related_traces and live is not None and live.is_complete
            else None
        )

    def _handle_arrival(self, arrived: ArrivedSpans) -> None:
        own = any(self._trace_owners.get(trace_id) is self._owner for trace_id in arrived.trace_ids)
        unowned = not arrived.trace_ids <= self._trace_owners.keys()
        if self._live_traces is not None:
            if own:
                self._live_traces.add_arrived(arrived)
            self._has_related_traces = self._has_related_traces or (unowned and self._is_possibly_related(arrived))
        if own or (unowned and self.live_traces is None):
            self._services |= arrived.services
            self._arrived.set()

    def _is_possibly_related(self, arrived: ArrivedSpans) -> bool:
        """Return whether spans of traces without an owner link to our traces, or carry a run id."""
        linked = (self._trace_owners.get(trace_id) is self._owner for trace_id in arrived.linked_trace_ids)
        return RUN_ID_ATTRIBUTE in arrived.attribute_names or any(linked)

    def wake(self) -> None:
        """End the current wait."""
        self._arrived.set()

    def acknowledge(self) -> None:
        """Clear the notification about the spans that have arrived."""
        self._arrived.clear()

    def wait(self, seconds: float) -> bool:
        """Wait for spans. Return whether any arrived within `seconds`."""
        return self._arrived.wait(max(seconds, 0))

    def is_service_missing(self, required_services: ServiceRequirements) -> bool:
        """Return whether a required service is still missing although the store knows that it sends spans."""
        known_services = self._store.services
        return any(each <= known_services and each.isdisjoint(self._services) for each in required_services)


def find_required_services(expectation: s.Expectation, bindings: Bindings) -> ServiceRequirements:
    """Return the services that must have sent spans before a claim can be decided; empty if they are unknown.

    A path holds only when its last step has arrived, a claim of existence when the span has arrived. Neither fails
    before the traces are settled.
    """
    match expectation.claim:
        case s.Path(mode="some") as claim if expectation.share is None:
            targets_by_step = [step.targets for step, _ in list_steps(claim.segment)]
        case s.Some(selection=selection) if expectation.share is None:
            targets_by_step = [(selection.caller if isinstance(selection, s.CallSelection) else selection,)]
        case _:
            return ()
    resolved = (_resolve_services(targets, bindings) for targets in targets_by_step)
    return tuple(services for services in resolved if services)


def _resolve_services(targets: Iterable[s.SpanSelection], bindings: Bindings) -> frozenset[str]:
    """Return the services that alternative targets name; empty if one of them matches any service."""
    names = [resolve_service(target, bindings) for target in targets]
    return frozenset() if None in names else frozenset(name for name in names if name is not None)
