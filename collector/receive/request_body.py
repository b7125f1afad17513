"""The body of an HTTP request: read and unpacked as it comes, and no further than the limits go."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from spanproof.collector.otlp.decoder import UndecodableRequest
from spanproof.collector.receive.status import RequestTooLarge
from spanproof.collector.storage.ingest_queue import Backpressure

if TYPE_CHECKING:
    from typing import Self

    from starlette.requests import Request

_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class ByteBudget:
    """How many bytes of bodies may be held at once, over all requests of an event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held_bytes = 0

    def open_reservation(self) -> ByteReservation:
        """Begin with nothing; what the share has grown to is given back at its end."""
        return ByteReservation(self)


class ByteReservation:
    """What one request holds of the room."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._budget.held_bytes -= self._held_bytes

    def grow(self, count: int) -> None:
        """Take `count` bytes more. Raises Backpressure where others leave no room for them."""
        others = self._budget.held_bytes - self._held_bytes
        if others and self._budget.held_bytes + count > self._budget.limit:
            raise Backpressure(f"the collector is busy: {self._budget.held_bytes} bytes of requests are held")
        self._held_bytes += count
        self._budget.held_bytes += count


async def read_body(request: Request, reservation: ByteReservation, limit: int, *, decompress: bool) -> bytes:
    """Read the body. Raises TooLarge as soon as it is, Undecodable, Backpressure."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise RequestTooLarge(limit)  # before a client that waits for `100 Continue` sends any of it
    body = bytearray()
    unpacker = _GzipDecompressor() if decompress else None
    sent = 0
    async for chunk in request.stream():
        sent += len(chunk)
        if unpacker is not None:
            chunk = unpacker.feed(chunk, limit - len(body) + 1)
        if max(sent, len(body) + len(chunk)) > limit:
            raise RequestTooLarge(limit)
        reservation.grow(len(chunk))
        body += chunk
    if unpacker is not None:
        unpacker.finish()
    return bytes(body)


class _GzipDecompressor:
    """Unpacks gzip piece by piece; several members follow each other as one."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._begun = False

    def feed(self, compressed: bytes, max_bytes: int) -> bytes:
        """Unpack the next piece, to `most` bytes at most."""
        unpacked = bytearray()
        while compressed and len(unpacked) < max_bytes:
            self._begun = True
            member = self._member or zlib.decompressobj(_GZIP_WINDOW)
            try:
                unpacked += member.decompress(compressed, max_bytes - len(unpacked))
            except zlib.error as error:
                raise UndecodableRequest(f"the body is not gzip: {error}") from None
            compressed = member.unused_data
            self._member = None if member.eof else member
        return bytes(unpacked)

    def finish(self) -> None:
        """Refuse what ends in the middle."""
        if self._member is not None:
            raise UndecodableRequest("the body is not gzip: it ends too early")
