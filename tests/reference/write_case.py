"""Writer of ``.case`` files from spans."""

from __future__ import annotations

import json
from collections.abc import Iterator

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.tests.reference.generate import TraceSet
from spanproof.tests.reference.spans import Span, Value

KINDS = {number: word for word, number in SPAN_KINDS.items()}
STATUSES = {0: "", 1: " ok", 2: " error"}


def write_case(trace_set: TraceSet, claim: str, outcome: str) -> str:
    """Return a case; cycles and shared span ids, which the format cannot express, become comments."""
    lines = []
    linked = {(link.trace_id, link.span_id) for span in trace_set.spans for link in span.links}
    for number, (trace_id, settled) in enumerate({**trace_set.baseline, **trace_set.settled}.items(), 1):
        spans = [span for span in trace_set.spans if span.trace_id == trace_id]
        word = "baseline" if trace_id in trace_set.baseline else "trace"
        lines.append(f"{word} t{number}" + ("" if settled else " unsettled"))
        lines += _lines(spans, linked)
    return "\n".join([*lines, "", f"assert {claim}", f"  {outcome}", ""])


def _lines(spans: list[Span], linked: set[tuple[str, str]]) -> Iterator[str]:
    ids = {span.span_id for span in spans}
    written: set[int] = set()

    def write(span: Span, indent: int) -> Iterator[str]:
        if id(span) in written:
            return
        written.add(id(span))
        orphan = "orphan " if span.parent_id is not None and span.parent_id not in ids else ""
        yield "  " * indent + orphan + _line(span, linked)
        for child in spans:
            if child.parent_id == span.span_id:
                yield from write(child, indent + 1)

    for span in spans:
        if span.parent_id is None or span.parent_id not in ids:
            yield from write(span, 1)
    for span in spans:
        if id(span) not in written:
            yield f"  # its parent {span.parent_id} is part of a cycle:"
            yield from write(span, 1)
    if len(ids) < len(spans):
        yield "  # shared or repeated span ids: " + ", ".join(f"{span.span_id} ({span.service})" for span in spans)


def _line(span: Span, linked: set[tuple[str, str]]) -> str:
    words = [
        span.service,
        json.dumps(span.name),
        KINDS[span.kind],
        f"{_time(span.start_ns)}..{'' if span.unfinished else _time(span.end_ns)}",
    ]
    text = " ".join(words) + STATUSES[span.status]
    if span.attributes:
        text += " " + _object(span.attributes)
    if span.resource:
        text += " resource " + _object(span.resource)
    for event in span.events:
        text += f" event {json.dumps(event.name)} at {_time(event.at_ns)} {_object(event.attributes)}"
    for link in span.links:
        text += f" link {_label(link.trace_id, link.span_id)}"
    if (span.trace_id, span.span_id) in linked:
        text += f" as {_label(span.trace_id, span.span_id)}"
    return text


def _label(trace_id: str, span_id: str) -> str:
    return f"s{int(trace_id, 16)}x{int(span_id, 16)}"


def _time(ns: int) -> str:
    return f"{ns // 1_000_000}ms" if ns % 1_000_000 == 0 else f"{ns}ns"


def _object(attributes: dict[str, Value]) -> str:
    return "{ " + ", ".join(f"{key}: {json.dumps(value)}" for key, value in attributes.items()) + " }"
