"""The traces of ``.case`` files as spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spanproof.assertions.cases.case_file import CaseTrace
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.tests.reference.selections import World
from spanproof.tests.reference.spans import Event, Link, Span


def world_of(traces: Iterable[CaseTrace], rules: ServiceRules) -> World:
    """Return what a store knows that was sent these traces."""
    traces = tuple(traces)
    settled, baseline = (
        {
            _trace_id(trace, copy): not trace.unsettled
            for trace in traces
            if trace.baseline is of_baseline
            for copy in range(trace.copies)
        }
        for of_baseline in (False, True)
    )
    return World.of(_spans(traces), settled, baseline, rules)


def _trace_id(trace: CaseTrace, copy: int) -> str:
    return f"{trace.name}/{copy}"


def _spans(traces: tuple[CaseTrace, ...]) -> Iterator[Span]:
    labels = {span.label: (trace, index) for trace in traces for index, span in enumerate(trace.spans) if span.label}
    for trace in traces:
        for copy in range(trace.copies):
            later = copy * trace.interval_ns
            for index, span in enumerate(trace.spans):
                links = []
                for label in span.links:
                    other, place = labels[label]
                    links.append(Link(_trace_id(other, copy if other is trace else 0), str(place)))
                yield Span(
                    trace_id=_trace_id(trace, copy),
                    span_id=str(index),
                    parent_id=f"absent {index}" if span.orphan else None if span.parent is None else str(span.parent),
                    service=span.service,
                    name=span.name,
                    kind=span.kind,
                    start_ns=span.start_ns + later,
                    end_ns=span.end_ns + later,
                    status=span.status,
                    attributes=span.attributes,  # type: ignore[arg-type]  # as JSON, without objects
                    resource=span.resource,  # type: ignore[arg-type]
                    events=tuple(Event(e.name, e.at_ns + later, e.attributes) for e in span.events),  # type: ignore[arg-type]
                    links=tuple(links),
                )
