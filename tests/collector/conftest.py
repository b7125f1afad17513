from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from spanproof.collector.otlp.decoder import DecodedBatch
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.metrics import Metrics
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError

RequestMaker = Callable[..., ExportTraceServiceRequest]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open() as store:
        yield store


class GatedStore(Store):
    """Store that blocks each append until the gate is open; rejects a batch with a span named `poison`."""

    def __init__(self, path, settings, telemetry) -> None:
        super().__init__(path, settings, telemetry)
        self.gate = threading.Event()
        self.arrived = threading.Event()
        self.batches: list[int] = []

    def append(self, decoded: DecodedBatch) -> None:
        self.arrived.set()
        assert self.gate.wait(30)
        self.batches.append(len(decoded.spans))
        if "poison" in decoded.spans["name"].to_pylist():
            raise StoreError("poison")
        if "bug" in decoded.spans["name"].to_pylist():
            raise RuntimeError("bug")
        super().append(decoded)


@pytest.fixture
def gated_store() -> Iterator[GatedStore]:
    with GatedStore.open(telemetry=Metrics()) as store:
        yield store


@pytest.fixture
def receiver(store: Store) -> Iterator[Receiver]:
    with Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as receiver:
        yield receiver


@pytest.fixture
def make_request() -> RequestMaker:
    """Return a function that makes a request of one service with spans of one trace, with ids from 1 on."""

    def make(count: int = 1, *, trace_id: bytes = b"\x01" * 16, attributes: tuple[KeyValue, ...] = ()):
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "orders"
        scope = resource.scope_spans.add()
        scope.scope.name = "tests"
        for number in range(1, count + 1):
            scope.spans.add(
                trace_id=trace_id,
                span_id=number.to_bytes(8, "big"),
                name=f"span {number}",
                kind=2,
                start_time_unix_nano=1_000 * number,
                end_time_unix_nano=1_000 * number + 500,
                attributes=attributes,
            )
        return request

    return make
