"""Stores with complete, old requests of one service."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store

MS = 1_000_000


def make_service_requests(
    service: str, count: int, *, errors: int = 0, version: str = "1.4.2", ms: float = 100, seed: int = 1
) -> bytes:
    """Return `count` server spans of a service, of about `ms` milliseconds each; `errors` of them fail.

    Those that fail are spread evenly: a burst of errors would be a single event.
    """
    random_source = random.Random(seed)  # noqa: S311 (not for secrets)
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    for key, value in (("service.name", service), ("service.version", version)):
        resource_spans.resource.attributes.add(key=key).value.string_value = value
    spans = resource_spans.scope_spans.add().spans
    for number in range(count):
        start = time.time_ns() - 30_000 * MS
        span = spans.add(trace_id=random_source.randbytes(16), span_id=random_source.randbytes(8), name="GET /", kind=2)
        span.start_time_unix_nano = start
        span.end_time_unix_nano = start + int(ms * MS * (0.5 + random_source.random()))
        span.status.code = 2 if (number + 1) * errors // count > number * errors // count else 0
    return request.SerializeToString()


def store_requests(path: Path, *requests: bytes) -> None:
    """Store requests as if they had arrived ten seconds ago."""
    with Store.open(path) as opened:
        opened.append(Decoder().decode(requests))
        with closing(opened.cursor()) as cursor:
            cursor.execute("UPDATE spans SET arrived_ns = arrived_ns - 10_000_000_000")
