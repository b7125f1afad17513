"""Files of traces → trace requests; the format is told by the content."""

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

from spanproof.collector.files.documents import Json, UnreadableFile, load_document
from spanproof.collector.files.jaeger import convert_jaeger
from spanproof.collector.files.messages import read_messages
from spanproof.collector.files.otlp import OTHERS, TRACES, split_otlp
from spanproof.collector.files.pieces import Piece
from spanproof.collector.files.zipkin import convert_zipkin

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
_HEAD: Final = 4096
_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"


class Format(StrEnum):
    """What a file may hold."""

    OTLP_JSON = "otlp-json"
    OTLP_PROTO = "otlp-proto"
    JAEGER = "jaeger"
    ZIPKIN = "zipkin"


def read_file(path: Path, told: Format | None, skipped: Counter[str]) -> Iterator[Piece]:
    """Read a file, of the format told or else of the one its content shows; count in `skipped` what is no trace.

    Raises UnreadableFile, whose message says where in the file.
    """
    try:
        with _open(path) as stream:
            head = stream.peek(_HEAD)[:_HEAD]
            if not head.strip(_SPACE):
                raise UnreadableFile("the file is empty")
            if head.startswith(ZSTD):
                raise UnreadableFile("compressed with zstd; unpack it first")
            if told is Format.OTLP_PROTO or (told is None and not looks_like_json(head)):
                yield from read_messages(stream, skipped, certain=told is not None)
            else:
                yield from _read_documents(stream, told, skipped)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UnreadableFile(f"damaged gzip: {error}") from None
    except OSError as error:
        raise UnreadableFile(error.strerror or str(error)) from None


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader]:
    with path.open("rb") as raw:
        if not raw.peek(2).startswith(GZIP):
            yield raw
            return
        unpacked: io.BufferedReader = io.BufferedReader(gzip.GzipFile(fileobj=raw))
        with unpacked:
            yield unpacked


def looks_like_json(head: bytes) -> bool:
    """Say whether a file that begins so is JSON. The length of a protobuf message may look like ``{`` or a space."""
    text = head.removeprefix(_BOM)
    return text.lstrip(_SPACE)[:1] in (b"{", b"[") and not any(byte < 32 and byte not in _SPACE for byte in text)


def _read_documents(stream: IO[bytes], told: Format | None, skipped: Counter[str]) -> Iterator[Piece]:
    """Read one document, or one in each line."""
    lines = _number_lines(stream)
    number, line = next(lines)
    try:
        document = load_document(line, number)
    except UnreadableFile:
        rest = stream.read()
        if not rest.strip(_SPACE):
            raise
        yield from split_document(load_document(line + rest, number), told, "", skipped)
        return
    following = next(lines, None)
    place = "" if following is None else f"line {number}"
    while True:
        yield from split_document(document, told, place, skipped)
        if following is None:
            return
        number, line = following
        document, place = load_document(line, number), f"line {number}"
        following = next(lines, None)


def _number_lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(stream, 1) if line.strip(_SPACE))


def split_document(document: Json, told: Format | None, place: str, skipped: Counter[str]) -> Iterator[Piece]:
    """Make requests of a JSON document of any format."""
    try:
        match told or detect_format(document):
            case Format.JAEGER:
                yield from split_otlp(convert_jaeger(document), place, skipped)
            case Format.ZIPKIN:
                yield from split_otlp(convert_zipkin(document), place, skipped)
            case _:
                yield from split_otlp(document, place, skipped)
    except UnreadableFile as error:
        raise UnreadableFile(f"{place}: {error}" if place else str(error)) from None


def detect_format(document: Json) -> Format:
    """Say of which format a JSON document is. Raises UnreadableFile."""
    if isinstance(document, list):
        return Format.ZIPKIN
    if isinstance(document, dict):
        if any(key in document for key in (*TRACES, *OTHERS)):
            return Format.OTLP_JSON
        if "data" in document or "spans" in document:
            return Format.JAEGER
    raise UnreadableFile(
        "no traces in a known format: OTLP has resourceSpans or batches, Jaeger data or spans, Zipkin is an array"
    )
