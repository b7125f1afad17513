"""Spans of the traces in ``.case`` files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spanproof.assertions.cases.scenario import CaseTrace
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.tests.reference.selections import World
from spanproof.tests.reference.spans import Event, Link, Span


def make_world(traces: Iterable[CaseTrace], rules: ServiceRules) -> World:
    """Return the world of a store that contains these traces."""
    traces = tuple(traces)
    settled, baseline = (
        {
            _trace_id(trace, copy): not trace.unsettled
            for trace in traces
            if trace.baseline is is_baseline
            for copy in range(trace.copies)
        }
        for is_baseline in (False, True)
    )
    return World.of(_spans(traces), settled, baseline, rules)


def _trace_id(trace: CaseTrace, copy: int) -> str:
    return f"{trace.name}/{copy}"


def _spans(traces: tuple[CaseTrace, ...]) -> Iterator[Span]:
    labels = {span.label: (trace, index) for trace in traces for index, span in enumerate(trace.spans) if span.label}
    for trace in traces:
        for copy in range(trace.copies):
            offset_ns = copy * trace.interval_ns
            for index, span in enumerate(trace.spans):
                links = []
                for label in span.links:
                    linked_trace, index_of_link = labels[label]
                    links.append(
                        Link(_trace_id(linked_trace, copy if linked_trace is trace else 0), str(index_of_link))
                    )
                yield Span(
                    trace_id=_trace_id(trace, copy),
                    span_id=str(index),
                    parent_id=f"absent {index}" if span.orphan else None if span.parent is None else str(span.parent),
                    service=span.service,
                    name=span.name,
                    kind=span.kind,
                    start_ns=span.start_ns + offset_ns,
                    end_ns=(span.start_ns if span.end_ns is None else span.end_ns) + offset_ns,
                    unfinished=span.end_ns is None,
                    status=span.status,
                    attributes=span.attributes,  # type: ignore[arg-type]  # as JSON, without objects
                    resource=span.resource,  # type: ignore[arg-type]
                    events=tuple(Event(e.name, e.at_ns + offset_ns, e.attributes) for e in span.events),  # type: ignore[arg-type]
                    links=tuple(links),
                )
