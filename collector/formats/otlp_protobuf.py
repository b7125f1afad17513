"""OTLP protobuf files → trace requests: one message, or many, each preceded by its length."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.formats.json_documents import UnreadableFile
from spanproof.collector.formats.requests import LocatedRequest, reject_duplicate_keys_in_request

if TYPE_CHECKING:
    from google.protobuf.message import Message

# The tag of the only field of every request: it is a message, and it is repeated.
_ENTRY_TAG: Final = b"\x0a"
_OTHER_SIGNALS: Final[dict[str, type[Message]]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_MAX_BYTES: Final = 256 * 2**20
_MAX_VARINT_BYTES: Final = 5
_LENGTH_BYTES: Final = 4
_TRACE_ID_BYTES: Final = 16


def read_messages(
    stream: io.BufferedReader, skipped: Counter[str], *, format_is_known: bool
) -> Iterator[LocatedRequest]:
    """Read what stands in a file of messages; unless it is `certain` that it is one, say what else it may be."""
    name, bodies = _split_messages(stream)
    for number, body in enumerate(bodies if format_is_known else _require_otlp(bodies)):
        place = f"{name}[{number}]"
        kind = _detect_signal(body)
        if kind is None:
            raise UnreadableFile(f"{place}: not a trace request, or one with fields that would be lost")
        if kind != "traces":
            skipped[kind] += 1
            continue
        try:
            reject_duplicate_keys_in_request(ExportTraceServiceRequest.FromString(body))
        except UnreadableFile as error:
            raise UnreadableFile(f"{place}: {error}") from None
        yield LocatedRequest(body, place)


def _require_otlp(bodies: Iterator[bytes]) -> Iterator[bytes]:
    """Refuse a file whose first part shows that it is something else altogether."""
    try:
        first = next(bodies, b"")
        known = _detect_signal(first) is not None
    except UnreadableFile:
        known = False
    if not known:
        raise UnreadableFile("neither JSON (of OTLP, Jaeger or Zipkin) nor whole protobuf of OTLP")
    yield first
    yield from bodies


def _split_messages(stream: io.BufferedReader) -> tuple[str, Iterator[bytes]]:
    """Say what the parts of a file are called, and give them, each a request of its own."""
    first = stream.peek(1)[:1]
    if first == _ENTRY_TAG:
        entries = _read_entries(stream)
        try:
            single = _detect_signal(next(entries)) is not None
        except UnreadableFile:
            single = False
        stream.seek(0)
        if single:
            return "entry", _read_entries(stream)
    # the Collector's file exporter writes lengths of four bytes, all others varints
    return "message", _read_fixed_length_delimited(stream) if first == b"\0" else read_delimited(stream)


def read_delimited(stream: IO[bytes]) -> Iterator[bytes]:
    """Read messages that are each preceded by their length, as a varint."""
    while (length := _read_varint(stream)) is not None:
        yield _read_exactly(stream, length)


def write_delimited(stream: IO[bytes], body: bytes) -> None:
    """Write a message, preceded by its length."""
    stream.write(_encode_varint(len(body)) + body)


def _read_fixed_length_delimited(stream: IO[bytes]) -> Iterator[bytes]:
    while length := stream.read(_LENGTH_BYTES):
        if len(length) < _LENGTH_BYTES:
            raise UnreadableFile("the file ends in the middle of a length")
        yield _read_exactly(stream, int.from_bytes(length, "big"))


def _read_entries(stream: IO[bytes]) -> Iterator[bytes]:
    """Take one message apart: each entry of its only field makes a request, as requests may be laid end to end."""
    while tag := stream.read(1):
        if tag != _ENTRY_TAG:
            raise UnreadableFile(f"byte {stream.tell() - 1}: a field that would be lost")
        length = _read_varint(stream)
        if length is None:
            raise UnreadableFile("the file ends in the middle of a message")
        yield _ENTRY_TAG + _encode_varint(length) + _read_exactly(stream, length)


def _read_varint(stream: IO[bytes]) -> int | None:
    """Read a length; None at the end."""
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        byte = stream.read(1)
        if not byte:
            if place:
                raise UnreadableFile("the file ends in the middle of a length")
            return None
        value |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            return value
    raise UnreadableFile(f"byte {stream.tell() - 1}: no length of a message")


def _encode_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))


def _read_exactly(stream: IO[bytes], length: int) -> bytes:
    if length > _MAX_BYTES:
        raise UnreadableFile(f"byte {stream.tell()}: a message of {length} bytes; {_MAX_BYTES} are read at most")
    body = stream.read(length)
    if len(body) < length:
        raise UnreadableFile("the file ends in the middle of a message")
    return body


def _detect_signal(body: bytes) -> str | None:
    """Say what a request is of; None where it is nothing of OTLP, or holds what nobody here knows."""
    traces = _parse_known_fields(body, ExportTraceServiceRequest)
    # the requests of all signals look alike from afar, and a metric's name may stand where a trace id should
    if isinstance(traces, ExportTraceServiceRequest) and _has_valid_trace_ids(traces):
        return "traces"
    for kind, message in _OTHER_SIGNALS.items():
        if _parse_known_fields(body, message) is not None:
            return kind
    return None if traces is None else "traces"


def _has_valid_trace_ids(request: ExportTraceServiceRequest) -> bool:
    return all(
        len(span.trace_id) == _TRACE_ID_BYTES
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    )


def _parse_known_fields(body: bytes, message: type[Message]) -> Message | None:
    """Parse a message, unless it has fields that its type lacks."""
    try:
        parsed = message.FromString(body)
    except DecodeError:
        return None
    size = parsed.ByteSize()
    parsed.DiscardUnknownFields()
    return parsed if parsed.ByteSize() == size else None
