"""Verdicts of the engine: decodes and stores spans, derives calls, judges claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from spanproof.assertions.cases.scenario_requests import BASE_TIME_NS
from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.tests.reference.generate import TraceSet
from spanproof.tests.reference.spans import Span, Value


@contextmanager
def open_judge(trace_set: TraceSet) -> Iterator[Judge]:
    """Yield a judge of a store that contains a trace set."""
    with Store.open(settings={"threads": "1"}) as store:
        store.append(Decoder().decode([make_request(trace_set.spans).SerializeToString()]))
        derive_calls(store)
        connection = store.cursor()
        judge = Judge(connection)
        judge.select_traces(SelectedTraces(trace_set.settled))
        if trace_set.baseline:
            judge.select_baseline(list(trace_set.baseline))
        yield judge
        connection.close()


def make_request(spans: Sequence[Span]) -> ExportTraceServiceRequest:
    """Return a request that exports spans."""
    return ExportTraceServiceRequest(resource_spans=_group_by_resource(spans))


def _group_by_resource(spans: Sequence[Span]) -> list[ResourceSpans]:
    groups: dict[str, ResourceSpans] = {}
    for span in spans:
        resource = {"service.name": span.service, **span.resource}
        key = repr(sorted(resource.items()))
        if key not in groups:
            groups[key] = ResourceSpans()
            groups[key].resource.attributes.extend(key_values(resource))
            groups[key].scope_spans.add()
        groups[key].scope_spans[0].spans.append(_make_otlp_span(span))
    return list(groups.values())


def _make_otlp_span(span: Span) -> WireSpan:
    wire_span = WireSpan(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id or ""),
        name=span.name,
        kind=span.kind,  # type: ignore[arg-type]  # the enum's own numbers
        start_time_unix_nano=BASE_TIME_NS + span.start_ns,
        end_time_unix_nano=0 if span.unfinished else BASE_TIME_NS + span.end_ns,
        attributes=key_values(span.attributes),
    )
    wire_span.status.code = span.status  # type: ignore[assignment]  # the enum's own numbers
    for event in span.events:
        wire_span.events.add(
            name=event.name, time_unix_nano=BASE_TIME_NS + event.at_ns, attributes=key_values(event.attributes)
        )
    for link in span.links:
        wire_span.links.add(trace_id=bytes.fromhex(link.trace_id), span_id=bytes.fromhex(link.span_id))
    return wire_span


def key_values(attributes: dict[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any_value(value)) for key, value in attributes.items()]


def _any_value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[_any_value(each) for each in value]))
        case _:
            return AnyValue(string_value=value)
