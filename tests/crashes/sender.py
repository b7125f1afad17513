"""Client that sends traces over gRPC, records the acknowledged ones, and resends the others."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from pathlib import Path
from uuid import UUID

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.store import Store
from spanproof.tests.command import wait_until

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# status codes of a server that is overloaded or stops
RETRYABLE_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
TRACES = 20  # per request
SPANS = 3  # per trace


class Sender:
    """Client with several threads. A request has several traces, in each of which `gateway` calls `orders`."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.acknowledged_requests: list[tuple[bytes, list[str]]] = []
        self.errors: list[str] = []
        self.pending: deque[tuple[bytes, list[str]]] = deque()

    def start(self, address: str, workers: int = 4) -> SenderThreads:
        return SenderThreads(self, address, workers)

    def send_one(self, channel: grpc.Channel) -> bool:
        """Send a pending request, else a new one; return whether it was acknowledged."""
        try:
            body, traces = self.pending.popleft()
        except IndexError:
            body, traces = make_request()
        try:
            channel.unary_unary(EXPORT)(body, timeout=20)
        except grpc.RpcError as error:
            if error.code() not in RETRYABLE_CODES:
                raise
            self.errors.append(error.details())
            self.pending.append((body, traces))
            return False
        self.acknowledged.update(traces)
        self.acknowledged_requests.append((body, traces))
        return True

    def check(self, path: Path) -> None:
        """Check that every acknowledged trace is stored once, in spans and calls, and no other trace in part."""
        with Store.open(path) as store:
            derive_calls(store)
            with store.cursor() as cursor:
                spans = dict(cursor.execute("SELECT trace_id::VARCHAR, count(*) FROM spans GROUP BY 1").fetchall())
                calls = dict(cursor.execute("SELECT trace_id::VARCHAR, count(*) FROM calls GROUP BY 1").fetchall())
        assert self.acknowledged <= spans.keys()
        assert set(spans.values()) == {SPANS}
        assert calls == dict.fromkeys(spans, 1)


class SenderThreads:
    """Threads that send until `stop`."""

    def __init__(self, sender: Sender, address: str, workers: int) -> None:
        self._sender = sender
        self._stopped = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(address,)) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def _work(self, address: str) -> None:
        try:
            with grpc.insecure_channel(address) as channel:
                while not self._stopped.is_set():
                    if not self._sender.send_one(channel):
                        self._stopped.wait(0.1)
        except BaseException as error:
            self._failures.append(error)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures, self._failures


def resend_pending(sender: Sender, address: str) -> None:
    """Send all pending requests until each is acknowledged."""
    with grpc.insecure_channel(address) as channel:
        wait_until(
            lambda: not sender.pending or (sender.send_one(channel) and not sender.pending),
            "all requests are acknowledged",
        )


def make_request(count: int = TRACES) -> tuple[bytes, list[str]]:
    request = ExportTraceServiceRequest()
    scopes = []
    for name in ("gateway", "orders"):
        resource_spans = request.resource_spans.add()
        resource_spans.resource.attributes.add(key="service.name").value.string_value = name
        scopes.append(resource_spans.scope_spans.add())
    traces = [secrets.token_bytes(16) for _ in range(count)]
    for trace_id in traces:
        root, client, server = (secrets.token_bytes(8) for _ in range(SPANS))
        gateway, orders = scopes
        for scope, kind, span_id, parent, begin in (
            (gateway, 2, root, b"", 1000),
            (gateway, 3, client, root, 1100),
            (orders, 2, server, client, 1200),
        ):
            span = scope.spans.add(trace_id=trace_id, span_id=span_id, parent_span_id=parent, kind=kind, name="GET /")
            span.start_time_unix_nano, span.end_time_unix_nano = begin, 4000 - begin
            span.attributes.add(key="http.request.method").value.string_value = "GET"
            span.attributes.add(key="http.response.status_code").value.int_value = 200
    return request.SerializeToString(), [str(UUID(bytes=trace_id)) for trace_id in traces]
