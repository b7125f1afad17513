"""Stored traces as OTLP, for tests that compare them with the received spans."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanproof.collector.otlp.encoder import parse_trace_id
from spanproof.collector.storage.span_reader import read_requests
from spanproof.collector.storage.store import Store


def export_request(store: Store, trace_id_hex: str) -> TracesData:
    """Return a stored trace as OTLP; empty if the store does not contain it."""
    with store.cursor() as cursor:
        return next(read_requests(cursor, [parse_trace_id(trace_id_hex)]), TracesData())
