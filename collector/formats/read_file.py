"""Trace files → trace requests; the content determines the format."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

from spanproof.collector.formats.import_log import ImportLog
from spanproof.collector.formats.jaeger import convert_jaeger
from spanproof.collector.formats.json_documents import Json, UnreadableFile
from spanproof.collector.formats.json_reader import read_json_documents
from spanproof.collector.formats.otlp_json import (
    OTHER_SIGNALS_BY_KEY,
    TRACES_KEYS,
    WRAPPER_KEYS,
    split_otlp_document,
)
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


def read_trace_file(path: Path, declared_format: ImportFormat | None, log: ImportLog) -> Iterator[LocatedRequest]:
    """Yield the requests of a file in the declared format, or else the detected one.

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
                yield from read_messages(stream, log, format_is_known=declared_format is not None)
            else:
                yield from _read_json_documents(stream, declared_format, log)
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
    stream: IO[bytes], declared_format: ImportFormat | None, log: ImportLog
) -> Iterator[LocatedRequest]:
    """Read one document, documents on lines of their own, or documents one after the other."""
    documents = _locate_documents(stream)
    line, document = next(documents)
    following = next(documents, None)
    location = "" if following is None else f"line {line}"
    while True:
        yield from split_json_document(document, declared_format, location, log)
        if following is None:
            return
        line, document = following
        location = f"line {line}"
        following = next(documents, None)


def _locate_documents(stream: IO[bytes]) -> Iterator[tuple[int, Json]]:
    """Yield the documents of a file, each with its line. If the first line is complete, read line by line."""
    lines = _number_lines(stream)
    number, line = next(lines)
    try:
        first = list(read_json_documents(line, number))
    except UnreadableFile:
        # either a document of several lines, or invalid
        yield from read_json_documents(line + stream.read(), number)
        return
    del line
    yield from first
    for number, line in lines:
        yield from read_json_documents(line, number)


def _number_lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(stream, 1) if line.strip(_WHITESPACE))


def split_json_document(
    document: Json, declared_format: ImportFormat | None, location: str, log: ImportLog
) -> Iterator[LocatedRequest]:
    """Yield the requests of a JSON document of any format."""
    try:
        match declared_format or detect_format(document):
            case ImportFormat.JAEGER:
                documents = convert_jaeger(document, log)
            case ImportFormat.ZIPKIN:
                documents = convert_zipkin(document, log)
            case _:
                documents = iter((document,))
        for each in documents:
            yield from split_otlp_document(each, location, log)
    except UnreadableFile as error:
        raise UnreadableFile(f"{location}: {error}" if location else str(error)) from None


def detect_format(document: Json) -> ImportFormat:
    """Return the format of a JSON document. Raise UnreadableFile."""
    is_list = isinstance(document, Sequence) and not isinstance(document, str)
    sample = next(iter(document), None) if is_list else document
    if isinstance(sample, dict):
        if any(key in sample for key in (*TRACES_KEYS, *OTHER_SIGNALS_BY_KEY, *WRAPPER_KEYS)):
            return ImportFormat.OTLP_JSON
        if "data" in sample or "spans" in sample:
            return ImportFormat.JAEGER
    if is_list:
        return ImportFormat.ZIPKIN
    raise UnreadableFile(
        "no traces in a known format: OTLP has resourceSpans or batches, an answer of Tempo trace, one of Jaeger"
        " result, data or spans, and Zipkin is an array"
    )
