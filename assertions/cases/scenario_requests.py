"""OTLP requests that send the traces of a scenario."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from spanproof.assertions.cases.scenario import CaseSpan, CaseTrace
from spanproof.assertions.cases.variations import Variation
from spanproof.query_lang.check.constants import JsonValue

BASE_TIME_NS: Final = 1_700_000_000_000_000_000


class CaseRequests:
    """Builder of OTLP requests from case traces; ids are derived from names and therefore reproducible."""

    def __init__(self, traces: tuple[CaseTrace, ...], variation: Variation) -> None:
        self.variation = variation
        self.traces = traces
        self.span_by_label = {
            span.label: (trace, index)
            for trace in traces
            for index, span in enumerate(trace.spans)
            if span.label is not None
        }

    def list_settled(self, *, baseline: bool = False) -> dict[str, bool]:
        """Return the ids of the judged traces, or of the baseline traces, and whether each is settled."""
        return {
            self._make_trace_id(trace, copy).hex(): not trace.unsettled
            for trace in self.traces
            if trace.baseline == baseline
            for copy in range(trace.copies)
        }

    def find_span_id(self, label: str) -> str:
        """Return the id of the span with this label."""
        trace, index = self.span_by_label[label]
        return self._make_span_id(trace, 0, index).hex()

    def build_requests(self, traces: tuple[CaseTrace, ...]) -> Iterator[ExportTraceServiceRequest]:
        """Yield the requests that send these traces in this variation."""
        spans = [
            (span, self._build_span(trace, copy, index, span))
            for trace in traces
            for copy in range(trace.copies)
            for index, span in enumerate(trace.spans)
        ]
        if self.variation.shuffled:
            random.Random(7).shuffle(spans)  # noqa: S311 (an order, not a secret)
        if self.variation.duplicated:
            spans += spans
        size = 3 if self.variation.split else max(len(spans), 1)
        for start in range(0, len(spans), size):
            yield ExportTraceServiceRequest(resource_spans=_group_by_resource(spans[start : start + size]))

    def _build_span(self, trace: CaseTrace, copy: int, index: int, span: CaseSpan) -> Span:
        origin_ns = BASE_TIME_NS + self.variation.shift_ns + copy * trace.interval_ns
        result = Span(
            trace_id=self._make_trace_id(trace, copy),
            span_id=self._make_span_id(trace, copy, index),
            name=span.name,
            kind=span.kind,  # type: ignore[arg-type]  # the enum's own numbers
            start_time_unix_nano=origin_ns + span.start_ns,
            end_time_unix_nano=0 if span.end_ns is None else origin_ns + span.end_ns,
            attributes=_make_key_values(span.attributes),
        )
        result.status.code = span.status  # type: ignore[assignment]  # the enum's own numbers
        result.status.message = span.status_message
        if span.orphan:
            result.parent_span_id = self._hash(f"{trace.name}/{copy}/{index}/absent")[:8]
        else:
            parent = trace.spans[span.parent].parent if span.shared and span.parent is not None else span.parent
            if parent is not None:
                result.parent_span_id = self._make_span_id(trace, copy, parent)
        for event in span.events:
            result.events.add(
                name=event.name, time_unix_nano=origin_ns + event.at_ns, attributes=_make_key_values(event.attributes)
            )
        for label in span.links:
            linked_trace, linked_index = self.span_by_label[label]
            linked_copy = copy if linked_trace is trace else 0
            result.links.add(
                trace_id=self._make_trace_id(linked_trace, linked_copy),
                span_id=self._make_span_id(linked_trace, linked_copy, linked_index),
            )
        return result

    def _make_trace_id(self, trace: CaseTrace, copy: int) -> bytes:
        return self._hash(f"{trace.name}/{copy}")

    def _make_span_id(self, trace: CaseTrace, copy: int, index: int) -> bytes:
        span = trace.spans[index]
        if span.shared and span.parent is not None:
            return self._make_span_id(trace, copy, span.parent)
        return self._hash(f"{trace.name}/{copy}/{index}")[:8]

    def _hash(self, text: str) -> bytes:
        return hashlib.blake2b(f"{self.variation.salt}/{text}".encode(), digest_size=16).digest()


def _group_by_resource(spans: list[tuple[CaseSpan, Span]]) -> list[ResourceSpans]:
    groups: dict[str, ResourceSpans] = {}
    scopes: dict[tuple[str, str], ScopeSpans] = {}
    for span, otlp_span in spans:
        attributes = {"service.name": span.service, **span.resource}
        key = repr(sorted(attributes.items()))
        if key not in groups:
            groups[key] = ResourceSpans()
            groups[key].resource.attributes.extend(_make_key_values(attributes))
        scope_key = (key, repr(sorted(span.scope.items())))
        if scope_key not in scopes:
            scopes[scope_key] = groups[key].scope_spans.add()
            _fill_scope(scopes[scope_key].scope, span.scope)
        scopes[scope_key].spans.append(otlp_span)
    return list(groups.values())


def _fill_scope(scope: InstrumentationScope, content: dict[str, JsonValue]) -> None:
    scope.name, scope.version = (str(content.get(key, "")) for key in ("name", "version"))
    scope.attributes.extend(
        _make_key_values({key: value for key, value in content.items() if key not in ("name", "version")})
    )


def _make_key_values(attributes: dict[str, JsonValue]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_make_any_value(value)) for key, value in attributes.items()]


def _make_any_value(value: JsonValue) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_make_any_value(item) for item in value]))
    return AnyValue(string_value=str(value))
