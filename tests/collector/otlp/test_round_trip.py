from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.otlp.json_mapping import dump_json, json_to_protobuf, render_message
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACE_ID = bytes(range(16))

text = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["\x01", "\x01s", "\x00", "true", "0"])
uint32 = st.integers(0, 2**32 - 1)
time_ns = st.integers(0, 2**63 - 1)
span_id = st.binary(min_size=8, max_size=8).filter(any)

scalars = st.one_of(
    text.map(lambda value: AnyValue(string_value=value)),
    st.booleans().map(lambda value: AnyValue(bool_value=value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: AnyValue(int_value=value)),
    st.floats(allow_nan=False).map(lambda value: AnyValue(double_value=value)),
    st.just(AnyValue(double_value=float("nan"))),
    st.binary(max_size=8).map(lambda value: AnyValue(bytes_value=value)),
    st.just(AnyValue()),
)


def nest(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    pairs = st.builds(KeyValue, key=text, value=values)
    return st.one_of(
        st.lists(values, max_size=3).map(lambda items: AnyValue(array_value=ArrayValue(values=items))),
        st.lists(pairs, max_size=3).map(lambda items: AnyValue(kvlist_value=KeyValueList(values=items))),
    )


any_value = st.recursive(scalars, nest, max_leaves=4)
attributes = st.lists(
    st.builds(KeyValue, key=text, value=any_value), max_size=3, unique_by=lambda attribute: attribute.key
)
entity = st.builds(EntityRef, schema_url=text, type=text, id_keys=st.lists(text, max_size=2))
resource = st.builds(
    Resource, attributes=attributes, dropped_attributes_count=uint32, entity_refs=st.lists(entity, max_size=2)
)
scope = st.builds(InstrumentationScope, name=text, version=text, attributes=attributes, dropped_attributes_count=uint32)
event = st.builds(Span.Event, time_unix_nano=time_ns, name=text, attributes=attributes, dropped_attributes_count=uint32)
link = st.builds(
    Span.Link,
    trace_id=st.just(b"") | st.binary(min_size=16, max_size=16),
    span_id=st.just(b"") | st.binary(min_size=8, max_size=8),
    trace_state=text,
    flags=uint32,
    attributes=attributes,
    dropped_attributes_count=uint32,
)
span = st.builds(
    Span,
    trace_id=st.just(TRACE_ID),
    span_id=span_id,
    parent_span_id=st.just(b"") | span_id,
    trace_state=text,
    flags=uint32,
    name=text,
    kind=st.integers(0, 6),
    start_time_unix_nano=time_ns,
    end_time_unix_nano=time_ns,
    status=st.none() | st.builds(Status, code=st.integers(1, 3), message=text),
    attributes=attributes,
    dropped_attributes_count=uint32,
    events=st.lists(event, max_size=2),
    dropped_events_count=uint32,
    links=st.lists(link, max_size=2),
    dropped_links_count=uint32,
)
scope_spans = st.builds(ScopeSpans, scope=scope, schema_url=text, spans=st.lists(span, max_size=3))
resource_spans = st.builds(
    ResourceSpans, resource=resource, schema_url=text, scope_spans=st.lists(scope_spans, max_size=2)
)
requests = st.builds(ExportTraceServiceRequest, resource_spans=st.lists(resource_spans, max_size=2))


# an example is a whole request, so a hundred of them would take too long
modest = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def list_spans(data: TracesData | ExportTraceServiceRequest) -> list[tuple[bytes, str, bytes, str, bytes]]:
    """Return every span with its resource and scope; how spans are grouped by them has no meaning."""
    return sorted(
        (
            resource_entry.resource.SerializeToString(deterministic=True),
            resource_entry.schema_url,
            scope_entry.scope.SerializeToString(deterministic=True),
            scope_entry.schema_url,
            each.SerializeToString(deterministic=True),
        )
        for resource_entry in data.resource_spans
        for scope_entry in resource_entry.scope_spans
        for each in scope_entry.spans
    )


def store_and_export(store: Store, request: ExportTraceServiceRequest) -> TracesData:
    store.append(Decoder().decode([request.SerializeToString()]))
    return export_request(store, TRACE_ID.hex())


@modest
@given(request=requests)
def test_stored_spans_round_trip(request: ExportTraceServiceRequest) -> None:
    with Store.open() as store:
        assert list_spans(store_and_export(store, request)) == list_spans(request)


@modest
@given(request=requests)
def test_json_round_trip(request: ExportTraceServiceRequest) -> None:
    body = dump_json(render_message(request)).encode()
    assert json_to_protobuf(body) == request.SerializeToString(deterministic=True)


def test_spans_keep_order_and_are_grouped(store: Store, make_request) -> None:
    for count in (2, 3):
        store.append(Decoder().decode([make_request(count, trace_id=TRACE_ID).SerializeToString()]))
    data = export_request(store, TRACE_ID.hex().upper())
    (scope_entry,) = data.resource_spans[0].scope_spans
    assert len(data.resource_spans) == 1
    assert [each.name for each in scope_entry.spans] == ["span 1", "span 2", "span 1", "span 2", "span 3"]


def test_unknown_trace_is_empty(store: Store) -> None:
    assert export_request(store, "00" * 16) == TracesData()


@pytest.mark.parametrize("trace_id", ["", "xyz", "{" + "0" * 30 + "}", "0" * 33])
def test_invalid_trace_id_is_rejected(store: Store, trace_id: str) -> None:
    with pytest.raises(ValueError, match="is not a trace id; a trace id has 32 hex digits"):
        export_request(store, trace_id)
