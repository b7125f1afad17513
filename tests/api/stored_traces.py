"""Spans for a store, and a client of the API over that store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.api.http.run_manager import RunManager
from spanproof.api.server.app import make_app
from spanproof.assertions.triggers.allowed_targets import AllowedTargets
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.collector.receive.addresses import open_listener
from spanproof.collector.receive.http_server import make_http_server
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.storage.store import Store
from spanproof.tests.reference.store_traces import key_values

# 2026-01-31T12:00:00Z
ZERO_NS = 1_769_860_800_000_000_000
MS = 1_000_000
Value = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span to be stored. Ids are numbers, times milliseconds since 12 o'clock; one without an end has not ended."""

    service: str
    name: str
    trace: int = 1
    id_: int = 1
    parent: int = 0
    kind: str = "server"
    ms: tuple[float, float | None] = (0, 10)
    error: bool = False
    attributes: dict[str, Value] = field(default_factory=dict)
    resource: dict[str, Value] = field(default_factory=dict)


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int) -> str:
    return f"{number:016x}"


def append(store: Store, *spans: StoredSpan) -> None:
    store.append(Decoder().decode([make_request(*spans).SerializeToString()]))


def make_request(*spans: StoredSpan) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for each in spans:
        resource_spans = request.resource_spans.add()
        resource_spans.resource.attributes.extend(key_values({"service.name": each.service, **each.resource}))
        span = resource_spans.scope_spans.add().spans.add(
            trace_id=bytes.fromhex(trace_id(each.trace)),
            span_id=bytes.fromhex(span_id(each.id_)),
            parent_span_id=bytes.fromhex(span_id(each.parent)) if each.parent else b"",
            name=each.name,
            kind=SPAN_KINDS[each.kind],
            start_time_unix_nano=ZERO_NS + int(each.ms[0] * MS),
            end_time_unix_nano=0 if each.ms[1] is None else ZERO_NS + int(each.ms[1] * MS),
            attributes=key_values(each.attributes),
        )
        if each.error:
            span.status.code = 2
    return request


@contextmanager
def open_client(store: Store, proofs: Path | None = None) -> Iterator[httpx.Client]:
    """Serve the API over a store on a free port, and yield a client."""
    with RunManager(store, AllowedTargets()) as run_manager, closing(open_listener("127.0.0.1:0")) as listener:
        server = make_http_server(make_app(store, run_manager, proofs=proofs), ReceiverOptions())
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False, timeout=60
            ) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
