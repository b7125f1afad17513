"""OTLP protobuf files → trace requests: one message, or many, each preceded by its length."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.formats.import_log import ImportLog
from spanproof.collector.formats.json_documents import UnreadableFile
from spanproof.collector.formats.requests import LocatedRequest

if TYPE_CHECKING:
    from google.protobuf.message import Message

# The tag of the only field of every request, a repeated message.
_ENTRY_TAG: Final = b"\x0a"
# What may follow the trace in an answer of Tempo: the end, metrics, a status and a message.
_TEMPO_TAGS: Final = (b"", b"\x12", b"\x18", b"\x22")
_OTHER_SIGNALS: Final[dict[str, type[Message]]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_MAX_BYTES: Final = 256 * 2**20
_MAX_VARINT_BYTES: Final = 5
_LENGTH_BYTES: Final = 4
_TRACE_ID_BYTES: Final = 16


def read_messages(stream: io.BufferedReader, log: ImportLog, *, format_is_known: bool) -> Iterator[LocatedRequest]:
    """Yield the requests of a file.

    Unless `format_is_known`, the error for a file without OTLP messages lists the other formats.
    """
    name, bodies = _split_messages(stream)
    for number, body in enumerate(bodies if format_is_known else _require_otlp(bodies, log)):
        location = f"{name}[{number}]"
        kind = _detect_signal(body)
        if kind is None and log.lenient and _is_readable_request(body):
            log.unknown_keys[name] += 1
            kind = "traces"
        if kind is None:
            raise UnreadableFile(f"{location}: not a trace request, or a trace request with unknown fields")
        if kind != "traces":
            log.skipped[kind] += 1
            continue
        yield LocatedRequest(body, location)


def _require_otlp(bodies: Iterator[bytes], log: ImportLog) -> Iterator[bytes]:
    """Raise UnreadableFile if the first message shows that the file is not OTLP."""
    try:
        first = next(bodies, b"")
        is_otlp = _detect_signal(first) is not None or (log.lenient and _is_readable_request(first))
    except UnreadableFile:
        is_otlp = False
    if not is_otlp:
        raise UnreadableFile("neither JSON (OTLP, Jaeger or Zipkin) nor complete OTLP protobuf")
    yield first
    yield from bodies


def _split_messages(stream: io.BufferedReader) -> tuple[str, Iterator[bytes]]:
    """Return the name of the parts of a file, and the parts, each a request."""
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
        answer = _read_tempo_answer(stream)
        stream.seek(0)
        if answer is not None:
            return "trace", iter((answer,))
    # the Collector's file exporter writes lengths of four bytes, all other tools write varints
    return "message", _read_fixed_length_delimited(stream) if first == b"\0" else read_delimited(stream)


def _read_tempo_answer(stream: IO[bytes]) -> bytes | None:
    """Return the trace in an answer of Tempo (`TraceByIDResponse`), or None if the file is something else."""
    try:
        stream.read(1)
        trace = _read_exactly(stream, _read_varint(stream) or 0)
        is_trace = _is_readable_request(trace) and _detect_signal(trace) == "traces"
    except UnreadableFile:
        return None
    return trace if is_trace and stream.read(1) in _TEMPO_TAGS else None


def read_delimited(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield messages that are each preceded by their length, as a varint."""
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
    """Split one message: each entry of its only field is a request, because requests can be concatenated."""
    while tag := stream.read(1):
        if tag != _ENTRY_TAG:
            raise UnreadableFile(f"byte {stream.tell() - 1}: an unknown field; its content would be lost")
        length = _read_varint(stream)
        if length is None:
            raise UnreadableFile("the file ends in the middle of a message")
        yield _ENTRY_TAG + _encode_varint(length) + _read_exactly(stream, length)


def _read_varint(stream: IO[bytes]) -> int | None:
    """Return a length, or None at the end of the stream."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        byte = stream.read(1)
        if not byte:
            if index:
                raise UnreadableFile("the file ends in the middle of a length")
            return None
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value
    raise UnreadableFile(f"byte {stream.tell() - 1}: not a valid message length")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def _read_exactly(stream: IO[bytes], length: int) -> bytes:
    if length > _MAX_BYTES:
        raise UnreadableFile(f"byte {stream.tell()}: a message of {length} bytes; the limit is {_MAX_BYTES}")
    body = stream.read(length)
    if len(body) < length:
        raise UnreadableFile("the file ends in the middle of a message")
    return body


def _detect_signal(body: bytes) -> str | None:
    """Return the signal of a request, or None if it is not OTLP or has unknown fields."""
    traces = _parse_known_fields(body, ExportTraceServiceRequest)
    # requests of all signals have the same outer structure, and the name of a metric can parse as a trace id
    if isinstance(traces, ExportTraceServiceRequest) and _has_valid_trace_ids(traces):
        return "traces"
    for kind, message in _OTHER_SIGNALS.items():
        if _parse_known_fields(body, message) is not None:
            return kind
    return None if traces is None else "traces"


def _is_readable_request(body: bytes) -> bool:
    """Return whether a body has spans with valid ids, whatever else it has."""
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return False
    has_spans = any(scope.spans for resource in request.resource_spans for scope in resource.scope_spans)
    return has_spans and _has_valid_trace_ids(request)


def _has_valid_trace_ids(request: ExportTraceServiceRequest) -> bool:
    return all(
        len(span.trace_id) == _TRACE_ID_BYTES
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


def _parse_known_fields(body: bytes, message: type[Message]) -> Message | None:
    """Parse a message; return None if it is invalid or has unknown fields."""
    try:
        parsed = message.FromString(body)
    except DecodeError:
        return None
    size = parsed.ByteSize()
    parsed.DiscardUnknownFields()
    return parsed if parsed.ByteSize() == size else None
