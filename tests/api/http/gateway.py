"""Stores with requests of one service in them, all complete and long past."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store

MS = 1_000_000


def make_requests_of(
    service: str, count: int, *, errors: int = 0, version: str = "1.4.2", ms: float = 100, seed: int = 1
) -> bytes:
    """Make so many requests that a service has served, the first of them in error, in about so many milliseconds."""
    dice = random.Random(seed)  # noqa: S311 (no secrets are made)
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    for key, value in (("service.name", service), ("service.version", version)):
        of_resource.resource.attributes.add(key=key).value.string_value = value
    spans = of_resource.scope_spans.add().spans
    for number in range(count):
        start = time.time_ns() - 30_000 * MS
        span = spans.add(trace_id=dice.randbytes(16), span_id=dice.randbytes(8), name="GET /", kind=2)
        span.start_time_unix_nano = start
        span.end_time_unix_nano = start + int(ms * MS * (0.5 + dice.random()))
        span.status.code = 2 if number < errors else 0
    return request.SerializeToString()


def store(path: Path, *requests: bytes) -> None:
    """Store requests as if they had come ten seconds ago."""
    with Store.open(path) as opened:
        opened.append(Decoder().decode(requests))
        with closing(opened.cursor()) as cursor:
            cursor.execute("UPDATE spans SET arrived_ns = arrived_ns - 10_000_000_000")
