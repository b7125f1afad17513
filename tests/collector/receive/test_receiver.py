from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from spanproof.collector.receive.addresses import AddressUnavailable, open_listener
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request


def make_exporter(receiver: Receiver, transport: str) -> SpanExporter:
    if transport == "grpc":
        return GrpcExporter(endpoint=f"http://{receiver.grpc_address}", insecure=True)
    compression = Compression.Gzip if transport == "http+gzip" else Compression.NoCompression
    return HttpExporter(endpoint=f"http://{receiver.http_address}/v1/traces", compression=compression)


@pytest.mark.parametrize("transport", ["grpc", "http", "http+gzip"])
def test_sdk_spans_are_stored(receiver: Receiver, store: Store, transport: str, caplog) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "orders", "replicas": [1, 2]}))
    provider.add_span_processor(SimpleSpanProcessor(make_exporter(receiver, transport)))
    tracer = provider.get_tracer("tests", "1.0")
    with tracer.start_as_current_span("parent", kind=SpanKind.SERVER) as parent:
        link = Link(parent.get_span_context(), {"why": "test"})
        with tracer.start_as_current_span("child", links=[link], attributes={"ok": False, "tags": ["a", "b"]}) as child:
            child.add_event("happened", {"n": 0})
            child.set_status(Status(StatusCode.ERROR, "broken"))
    provider.shutdown()

    (resource_spans,) = export_request(store, f"{parent.get_span_context().trace_id:032x}").resource_spans
    (scope_spans,) = resource_spans.scope_spans
    stored_child, stored_parent = scope_spans.spans
    assert (scope_spans.scope.name, scope_spans.scope.version) == ("tests", "1.0")
    assert (stored_parent.name, stored_parent.kind, stored_parent.parent_span_id) == ("parent", 2, b"")
    assert stored_child.parent_span_id == stored_child.links[0].span_id == stored_parent.span_id
    assert (stored_child.status.code, stored_child.status.message) == (2, "broken")
    assert stored_child.events[0].attributes[0].value.int_value == 0
    assert stored_child.start_time_unix_nano == child.start_time
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_addresses_are_actual_and_released_on_stop(store: Store) -> None:
    with Receiver(store, "127.0.0.1:0", "localhost:0") as receiver:
        grpc_address, http_address = receiver.grpc_address, receiver.http_address
        assert not grpc_address.endswith(":0")
        assert http_address.startswith("localhost:")
        assert not http_address.endswith(":0")
    with Receiver(store, grpc_address, http_address) as receiver:
        assert (receiver.grpc_address, receiver.http_address) == (grpc_address, http_address)


def test_address_in_use_is_rejected_and_other_released(store: Store, receiver: Receiver, capfd) -> None:
    with Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as other:
        free = other.grpc_address
    for grpc_address, http_address, used_address in (
        (receiver.grpc_address, "127.0.0.1:0", receiver.grpc_address),
        (free, receiver.http_address, receiver.http_address),
    ):
        with pytest.raises(AddressUnavailable) as error:
            Receiver(store, grpc_address, http_address).start()
        assert str(error.value) == (
            f"{used_address} is in use; stop what listens there, or name another address (port 0 picks one)"
        )
    with Receiver(store, free, "127.0.0.1:0"):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["", "4317", "localhost", "localhost:", "localhost:x", "::1:4317", "http://a:1"])
def test_invalid_address_is_rejected(store: Store, address: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address; write host:port, such as 127\.0\.0\.1:4317"):
        Receiver(store, address, "127.0.0.1:0").start()


def test_foreign_address_is_rejected(store: Store) -> None:
    with pytest.raises(AddressUnavailable, match=r"^cannot listen on 192\.0\.2\.1:0: .*; name another address$"):
        Receiver(store, "127.0.0.1:0", "192.0.2.1:0").start()


def test_stop_is_idempotent(store: Store) -> None:
    receiver = Receiver(store, "127.0.0.1:0", "127.0.0.1:0")
    assert receiver.stop()
    receiver.start()
    assert receiver.stop()
    assert receiver.stop()


SERVER = """
import sys
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
receiver = Receiver(Store.open(sys.argv[1]), "127.0.0.1:0", "127.0.0.1:0")
receiver.start()
print(receiver.http_address, flush=True)
input()
"""


def test_acknowledged_spans_survive_kill(tmp_path: Path, make_request) -> None:
    path = tmp_path / "spans.duckdb"
    server = subprocess.Popen([sys.executable, "-c", SERVER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        address = server.stdout.readline().decode().strip()
        for number in range(1, 4):
            request = make_request(10, trace_id=number.to_bytes(16, "big"))
            answer = httpx.post(
                f"http://{address}/v1/traces",
                content=request.SerializeToString(),
                headers={"content-type": "application/x-protobuf"},
            )
            assert answer.status_code == 200
        server.send_signal(signal.SIGKILL)
    with Store.open(path) as store, store.cursor() as cursor:
        assert cursor.execute("SELECT count(*), max(span_key) FROM spans").fetchall() == [(30, 30)]


def test_small_responses_are_sent_without_delay() -> None:
    # asyncio sets TCP_NODELAY only if a socket has an explicit protocol; otherwise each response waits 40 ms
    with open_listener("127.0.0.1:0") as listener:
        assert listener.proto == socket.IPPROTO_TCP
