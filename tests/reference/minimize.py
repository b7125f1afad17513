"""Reduction of a trace set while a predicate stays true."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from spanproof.tests.reference.generate import TraceSet
from spanproof.tests.reference.spans import Span


def minimize(trace_set: TraceSet, predicate: Callable[[TraceSet], bool]) -> TraceSet:
    """Return a trace set that satisfies `predicate`, and none of whose one-step simplifications does."""
    while (smaller := next(filter(predicate, _simplify(trace_set)), None)) is not None:
        trace_set = smaller
    return trace_set


def _simplify(trace_set: TraceSet) -> Iterator[TraceSet]:
    for trace, settled in trace_set.settled.items():
        if len(trace_set.settled) > 1:
            others = {other: each for other, each in trace_set.settled.items() if other != trace}
            yield TraceSet([span for span in trace_set.spans if span.trace_id != trace], others)
        if not settled:
            yield TraceSet(trace_set.spans, {**trace_set.settled, trace: True})
    for index, span in enumerate(trace_set.spans):
        yield TraceSet(trace_set.spans[:index] + trace_set.spans[index + 1 :], trace_set.settled)
        for simpler_span in _simplify_span(span):
            yield TraceSet([*trace_set.spans[:index], simpler_span, *trace_set.spans[index + 1 :]], trace_set.settled)


def _simplify_span(span: Span) -> Iterator[Span]:
    for name in span.attributes:
        yield replace(span, attributes={key: value for key, value in span.attributes.items() if key != name})
    if span.resource:
        yield replace(span, resource={})
    if span.events:
        yield replace(span, events=())
    if span.links:
        yield replace(span, links=())
    if span.status:
        yield replace(span, status=0)
    if span.parent_id is not None:
        yield replace(span, parent_id=None)
