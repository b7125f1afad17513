"""Typical requests of exporters, as input for mutations."""

from __future__ import annotations

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from spanproof.collector.otlp.json_mapping import dump_json, render_message


def make_traces() -> list[ExportTraceServiceRequest]:
    """Return requests that use every field: one of several services, a small one, an empty one."""
    full = ExportTraceServiceRequest()
    for service in ("orders", "payments"):
        resource_spans = full.resource_spans.add(schema_url="https://example.org/1")
        resource_spans.resource.attributes.add(key="service.name").value.string_value = service
        resource_spans.resource.dropped_attributes_count = 1
        resource_spans.resource.entity_refs.add(type="service", id_keys=["service.name"])
        scope_spans = resource_spans.scope_spans.add(schema_url="https://example.org/2")
        scope_spans.scope.name, scope_spans.scope.version = "tests", "1"
        for number in range(1, 4):
            span = scope_spans.spans.add(
                trace_id=bytes([number]) * 16,
                span_id=bytes([number]) * 8,
                parent_span_id=bytes([number - 1]) * 8,
                trace_state="a=b",
                flags=257,
                name=f"GET /örders/{number}",
                kind=number,
                start_time_unix_nano=1_700_000_000_000_000_000,
                end_time_unix_nano=1_700_000_000_000_000_000 + number,
                dropped_events_count=2**32 - 1,
            )
            for position, value in enumerate(_make_values()):
                span.attributes.add(key=f"key.{position}").value.CopyFrom(value)
            span.events.add(name="exception", time_unix_nano=5).attributes.add(key="e").value.int_value = -1
            span.links.add(trace_id=b"\x09" * 16, span_id=b"\x09" * 8, trace_state="x").attributes.add(key="l")
            span.status.code, span.status.message = 2, "broken"
    small = ExportTraceServiceRequest()
    span = small.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\x01" * 16, span_id=b"\x02" * 8, name="s")
    span.end_time_unix_nano = 1
    return [full, small, ExportTraceServiceRequest()]


def _make_values() -> list[AnyValue]:
    nested = AnyValue()
    nested.kvlist_value.values.add(key="k").value.array_value.values.add().bytes_value = b"\xff\x00"
    return [
        AnyValue(string_value="text"),
        AnyValue(string_value="\x01s"),
        AnyValue(bool_value=True),
        AnyValue(int_value=-(2**63)),
        AnyValue(double_value=1e308),
        AnyValue(bytes_value=b"\x00\xff"),
        AnyValue(),
        nested,
    ]


def make_bodies() -> dict[str, list[tuple[bytes, bytes]]]:
    """Return the same requests in protobuf and JSON, by path."""
    logs, metrics = ExportLogsServiceRequest(), ExportMetricsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "message"
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.exponential_histogram.data_points.add(scale=-3).positive.bucket_counts.extend([1, 2])
    requests = {"/v1/traces": make_traces(), "/v1/logs": [logs], "/v1/metrics": [metrics]}
    return {
        path: [(each.SerializeToString(), dump_json(render_message(each)).encode()) for each in messages]
        for path, messages in requests.items()
    }
