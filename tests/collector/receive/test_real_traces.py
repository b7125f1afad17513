from __future__ import annotations

import gzip
import json
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from spanproof.collector.otlp.decoder import Decoder, ExportResult
from spanproof.collector.otlp.json_mapping import InvalidJson, json_to_protobuf
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACES = Path(__file__).parents[2] / "traces"
PATHS = {"resourceSpans": "/v1/traces", "resourceLogs": "/v1/logs", "resourceMetrics": "/v1/metrics"}


def read_lines(name: str) -> list[bytes]:
    content = (TRACES / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    return content.splitlines() if ".jsonl" in name or name.endswith(".gz") else [content]


def test_opentelemetry_demo_is_stored_completely(receiver: Receiver, store: Store) -> None:
    lines = read_lines("oteldemo/test_data.json.gz")
    spans_by_trace: dict[str, list[bytes]] = {}
    with httpx.Client(
        base_url=f"http://{receiver.http_address}", headers={"content-type": "application/json"}
    ) as client:
        for line in lines:
            (signal,) = json.loads(line)
            answer = client.post(PATHS[signal], content=line)
            assert answer.status_code == 200
            if signal == "resourceSpans":
                assert answer.json() == {}
                request = ExportTraceServiceRequest.FromString(json_to_protobuf(line))
                for resource_spans in request.resource_spans:
                    for scope_spans in resource_spans.scope_spans:
                        for span in scope_spans.spans:
                            if span.status == Status():
                                span.ClearField("status")  # an empty status is equivalent to none
                            spans_by_trace.setdefault(span.trace_id.hex(), []).append(
                                span.SerializeToString(deterministic=True)
                            )
            else:
                assert answer.json()["partialSuccess"]["errorMessage"] == "spanproof stores traces only"
    with store.cursor() as cursor:
        counts = cursor.execute(
            "SELECT count(*), count(DISTINCT trace_id), count(DISTINCT service), count(*) FILTER (status = 2),"
            " sum(len(events)), sum(len(links)) FROM spans"
        ).fetchall()
    assert counts == [(547, 141, 8, 107, 139, 53)]
    for trace_id, spans in spans_by_trace.items():
        stored = [
            span.SerializeToString(deterministic=True)
            for resource_spans in export_request(store, trace_id).resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]
        assert sorted(stored) == sorted(spans)


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("otlp-examples/trace.json", [1]),
        ("duckdb-otlp/traces_simple.jsonl", [1, 1, 1]),
        ("duckdb-otlp/traces_nulls.jsonl", [1, 1, 1]),
        ("duckdb-otlp/traces_deep_nesting.jsonl", [1]),
        ("duckdb-otlp/traces_large_attrs.jsonl", [1]),
        ("duckdb-otlp/multifile_valid_traces.jsonl", [1]),
    ],
)
def test_published_examples_are_decoded(store: Store, name: str, spans: list[int]) -> None:
    decoded = Decoder().decode([json_to_protobuf(line) for line in read_lines(name)])
    assert decoded.outcomes == tuple(ExportResult(count) for count in spans)
    store.append(decoded)


def test_published_protobuf_is_stored_unchanged(store: Store) -> None:
    body = (TRACES / "duckdb-otlp" / "otlp_traces.pb").read_bytes()
    store.append(Decoder().decode([body]))
    (resource_spans,) = export_request(store, "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6").resource_spans
    assert list(ExportTraceServiceRequest.FromString(body).resource_spans) == [resource_spans]


def test_published_malformed_line_is_rejected() -> None:
    (line,) = read_lines("duckdb-otlp/multifile_malformed_traces.jsonl")
    with pytest.raises(InvalidJson, match=r"^\$: not JSON"):
        json_to_protobuf(line)
