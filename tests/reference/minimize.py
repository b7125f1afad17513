"""Makes a trace set smaller for as long as something stays true of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from spanproof.tests.reference.generate import TraceSet
from spanproof.tests.reference.spans import Span


def minimize(made: TraceSet, still: Callable[[TraceSet], bool]) -> TraceSet:
    """Return a trace set of which `still` is true, and of no simpler one that is a step away."""
    while (smaller := next(filter(still, _simpler(made)), None)) is not None:
        made = smaller
    return made


def _simpler(made: TraceSet) -> Iterator[TraceSet]:
    for trace, settled in made.settled.items():
        if len(made.settled) > 1:
            others = {other: each for other, each in made.settled.items() if other != trace}
            yield TraceSet([span for span in made.spans if span.trace_id != trace], others)
        if not settled:
            yield TraceSet(made.spans, {**made.settled, trace: True})
    for place, span in enumerate(made.spans):
        yield TraceSet(made.spans[:place] + made.spans[place + 1 :], made.settled)
        for plainer in _plainer(span):
            yield TraceSet([*made.spans[:place], plainer, *made.spans[place + 1 :]], made.settled)


def _plainer(span: Span) -> Iterator[Span]:
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
