"""Trace files → trace requests; the content determines the format."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

from spanproof.collector.formats.jaeger import convert_jaeger
from spanproof.collector.formats.json_documents import Json, UnreadableFile, load_json_document
from spanproof.collector.formats.otlp_json import OTHER_SIGNALS_BY_KEY, TRACES_KEYS, split_otlp_document
from spanproof.collector.formats.otlp_protobuf import read_messages
from spanproof.collector.formats.requests import LocatedRequest
from spanproof.collector.formats.zipkin import convert_zipkin

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_HEAD_BYTES: Final = 4096
_WHITESPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"


class ImportFormat(StrEnum):
    """Formats of imported files."""

    OTLP_JSON = "otlp-json"
    OTLP_PROTO = "otlp-proto"
    JAEGER = "jaeger"
    ZIPKIN = "zipkin"


def read_trace_file(
    path: Path, declared_format: ImportFormat | None, skipped: Counter[str]
) -> Iterator[LocatedRequest]:
    """Yield the requests of a file in the declared format, or else the detected one; count skipped documents.

    Raises UnreadableFile, whose message contains the position in the file.
    """
    try:
        with _open_decompressed(path) as stream:
            head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            if not head.strip(_WHITESPACE):
                raise UnreadableFile("the file is empty")
            if head.startswith(ZSTD_MAGIC):
                raise UnreadableFile("compressed with zstd; unpack it first")
            if declared_format is ImportFormat.OTLP_PROTO or (declared_format is None and not is_json(head)):
                yield from read_messages(stream, skipped, format_is_known=declared_format is not None)
            else:
                yield from _read_json_documents(stream, declared_format, skipped)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UnreadableFile(f"damaged gzip: {error}") from None
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from None


@contextmanager
def _open_decompressed(path: Path) -> Iterator[io.BufferedReader]:
    with path.open("rb") as raw:
        if not raw.peek(2).startswith(GZIP_MAGIC):
            yield raw
            return
        decompressed: io.BufferedReader = io.BufferedReader(gzip.GzipFile(fileobj=raw))
        with decompressed:
            yield decompressed


def is_json(head: bytes) -> bool:
    """Return whether a file with this head is JSON. The length of a protobuf message may look like ``{`` or a space."""
    text = head.removeprefix(_BOM)
    return text.lstrip(_WHITESPACE)[:1] in (b"{", b"[") and not any(
        byte < 32 and byte not in _WHITESPACE for byte in text
    )


def _read_json_documents(
    stream: IO[bytes], declared_format: ImportFormat | None, skipped: Counter[str]
) -> Iterator[LocatedRequest]:
    """Read one document, or one document per line."""
    lines = _number_lines(stream)
    number, line = next(lines)
    try:
        document = load_json_document(line, number)
    except UnreadableFile:
        rest = stream.read()
        if not rest.strip(_WHITESPACE):
            raise
        yield from split_json_document(load_json_document(line + rest, number), declared_format, "", skipped)
        return
    next_line = next(lines, None)
    location = "" if next_line is None else f"line {number}"
    while True:
        yield from split_json_document(document, declared_format, location, skipped)
        if next_line is None:
            return
        number, line = next_line
        document, location = load_json_document(line, number), f"line {number}"
        next_line = next(lines, None)


def _number_lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(stream, 1) if line.strip(_WHITESPACE))


def split_json_document(
    document: Json, declared_format: ImportFormat | None, location: str, skipped: Counter[str]
) -> Iterator[LocatedRequest]:
    """Yield the requests of a JSON document of any format."""
    try:
        match declared_format or detect_format(document):
            case ImportFormat.JAEGER:
                yield from split_otlp_document(convert_jaeger(document), location, skipped)
            case ImportFormat.ZIPKIN:
                yield from split_otlp_document(convert_zipkin(document), location, skipped)
            case _:
                yield from split_otlp_document(document, location, skipped)
    except UnreadableFile as error:
        raise UnreadableFile(f"{location}: {error}" if location else str(error)) from None


def detect_format(document: Json) -> ImportFormat:
    """Return the format of a JSON document. Raise UnreadableFile."""
    if isinstance(document, list):
        return ImportFormat.ZIPKIN
    if isinstance(document, dict):
        if any(key in document for key in (*TRACES_KEYS, *OTHER_SIGNALS_BY_KEY)):
            return ImportFormat.OTLP_JSON
        if "data" in document or "spans" in document:
            return ImportFormat.JAEGER
    raise UnreadableFile(
        "no traces in a known format: OTLP has resourceSpans or batches, Jaeger data or spans, Zipkin is an array"
    )
