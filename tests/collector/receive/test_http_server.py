"""Limits of the HTTP server, over plain sockets."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from spanproof.collector.receive.addresses import split_address
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.receive.raw_connection import read_to_end, send_http
from spanproof.tests.command import DEADLINE_S

HEAD = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
GOOD = HEAD + b"content-length: 2\r\n\r\n{}"


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Receiver(store, "127.0.0.1:0", "127.0.0.1:0", ReceiverOptions(**options))
        )


def connect(receiver: Receiver) -> socket.socket:
    return socket.create_connection(split_address(receiver.http_address), DEADLINE_S)


def read_response(answer: bytes) -> tuple[bytes, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b" ")[1], json.loads(body)["message"]


def read_success(peer: socket.socket) -> None:
    answer = b""
    while not answer.partition(b"\r\n\r\n")[2]:
        answer += peer.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",  # no host
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 100_000,
    ],
)
def test_invalid_http_gets_a_status(receiver: Receiver, capfd, request_bytes: bytes) -> None:
    status, message = read_response(send_http(receiver.http_address, request_bytes))
    assert (status, message) == (b"400", "this is not HTTP/1.1, or its headers are too long")
    assert capfd.readouterr() == ("", "")


def test_grpc_at_http_address_is_named(receiver: Receiver, caplog) -> None:
    for _ in range(2):
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
        status, message = read_response(send_http(receiver.http_address, preface))
        assert status == b"400"
        assert message == (
            "this is HTTP/2; a gRPC exporter must use the gRPC address, or OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )
    [warning] = caplog.messages
    assert re.fullmatch(
        r"a gRPC exporter \(127\.0\.0\.1:\d+\) connected to the HTTP address: use the gRPC address, or"
        r" OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        warning,
    )


def test_broken_chunk_closes_connection(receiver: Receiver) -> None:
    status, _ = read_response(
        send_http(receiver.http_address, HEAD + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n")
    )
    assert status == b"400"


def test_broken_head_request_gets_no_body(receiver: Receiver, capfd) -> None:
    head = HEAD.replace(b"POST", b"HEAD") + b"transfer-encoding: chunked\r\n\r\n"
    answer = send_http(receiver.http_address, head + b"nonsense\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("start", [b"", b"P", HEAD, HEAD + b"content-length: 2\r\n\r\n{"])
def test_stalled_request_times_out(serve: Callable[..., Receiver], start: bytes) -> None:
    receiver = serve(receive_timeout_s=0.2)
    status, message = read_response(send_http(receiver.http_address, start))
    assert (status, message) == (b"408", "the request did not arrive within 0.2 s")


@pytest.mark.parametrize("start", [b"", HEAD + b"content-length: 1000000\r\n\r\n"])
def test_slow_request_times_out(serve: Callable[..., Receiver], start: bytes) -> None:
    receiver = serve(receive_timeout_s=0.5)
    with connect(receiver) as peer:
        peer.sendall(start)
        peer.settimeout(0.05)
        answer, started_at = b"", time.monotonic()
        while not answer:
            assert time.monotonic() - started_at < DEADLINE_S
            peer.sendall(b"a")
            try:
                answer = peer.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_unread_body_times_out(serve: Callable[..., Receiver]) -> None:
    receiver = serve(receive_timeout_s=0.5)
    request = GOOD.replace(b"/v1/traces", b"/nowhere").replace(b"content-length: 2", b"content-length: 1000000")
    answer = send_http(receiver.http_address, request)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_idle_connection_is_kept(serve: Callable[..., Receiver]) -> None:
    receiver = serve(receive_timeout_s=0.3)
    with connect(receiver) as peer:
        for _ in range(2):
            peer.sendall(GOOD)
            read_success(peer)
            peer.settimeout(0.6)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            peer.settimeout(DEADLINE_S)


def test_request_waiting_for_commit_does_not_time_out(gated_store, make_request) -> None:
    options = ReceiverOptions(receive_timeout_s=0.2)
    with Receiver(gated_store, "127.0.0.1:0", "127.0.0.1:0", options) as receiver, connect(receiver) as peer:
        body = make_request().SerializeToString()
        peer.sendall(HEAD.replace(b"json", b"x-protobuf") + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert gated_store.arrived.wait(DEADLINE_S)
        peer.settimeout(0.6)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        peer.settimeout(DEADLINE_S)
        gated_store.gate.set()
        assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_connections_are_limited(serve: Callable[..., Receiver]) -> None:
    receiver = serve(max_connections=2)
    with connect(receiver) as first, connect(receiver) as second:
        for peer in (first, second):
            peer.sendall(GOOD)
            read_success(peer)
        with connect(receiver) as third:
            answer = read_to_end(third)
            assert read_response(answer) == (b"503", "there are 2 connections already")
            assert b"retry-after: 1\r\n" in answer.lower()
        first.sendall(GOOD)
        read_success(first)


def test_bytes_in_flight_are_limited(serve: Callable[..., Receiver]) -> None:
    receiver = serve(max_bytes_in_flight=1000)
    request = HEAD + b"content-length: 900\r\n\r\n" + b" " * 800
    with connect(receiver) as peer:
        peer.sendall(request)
        rejected = None
        while rejected is None or rejected.status_code == 200:  # until the server has read the first request
            rejected = httpx.post(
                f"http://{receiver.http_address}/v1/traces", content=b"{}" + b" " * 300,
                headers={"content-type": "application/json"},
            )  # fmt: skip
        assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "1")
        assert rejected.json()["message"] == "the collector is busy: 800 bytes of requests are held"
        peer.sendall(b" " * 98 + b"{}")
        read_success(peer)
    retried = httpx.post(f"http://{receiver.http_address}/v1/traces", content=b"{}" + b" " * 300,
                       headers={"content-type": "application/json"})  # fmt: skip
    assert retried.status_code == 200
