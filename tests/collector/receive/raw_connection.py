"""Requests that no client library sends, over plain sockets."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from spanproof.collector.receive.addresses import split_address
from spanproof.tests.command import DEADLINE_S


@dataclass(slots=True)
class GrpcResponse:
    """Headers and trailers together, and the message, if any."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: bool = False


def call_grpc(
    address: str, path: str, message: bytes, *, compressed: bool = False, headers: dict[str, str] | None = None
) -> GrpcResponse:
    """Send one gRPC request, frame by frame."""
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    connection.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", address),
            (":path", path),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *(headers or {}).items(),
        ],
    )
    connection.send_data(1, struct.pack(">BI", compressed, len(message)) + message, end_stream=True)
    answer = GrpcResponse()
    with socket.create_connection(split_address(address), DEADLINE_S) as peer:
        while True:
            peer.sendall(connection.data_to_send())
            received = peer.recv(65536)
            assert received, "the server has closed the connection"
            for event in connection.receive_data(received):
                match event:
                    case ResponseReceived() | TrailersReceived():
                        answer.headers |= dict(event.headers)
                    case DataReceived():
                        answer.data += event.data
                    case StreamReset():
                        answer.reset = True
                        return answer
                    case StreamEnded():
                        return answer


def send_http(address: str, *chunks: bytes) -> bytes:
    """Send chunks of HTTP over one connection; return all data until the server closes it."""
    with socket.create_connection(split_address(address), DEADLINE_S) as peer:
        for chunk in chunks:
            peer.sendall(chunk)
        return read_to_end(peer)


def read_to_end(peer: socket.socket) -> bytes:
    """Read until the peer closes the connection."""
    received = b""
    while chunk := peer.recv(65536):
        received += chunk
    return received
