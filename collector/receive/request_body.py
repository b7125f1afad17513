"""Body of an HTTP request: read and decompressed as it arrives, within the limits."""

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
    """Limit on the bytes of bodies in memory, over all requests of an event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held_bytes = 0

    def open_reservation(self) -> ByteReservation:
        """Return an empty reservation; its bytes are released when it ends."""
        return ByteReservation(self)


class ByteReservation:
    """The share of the budget that one request holds."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._budget.held_bytes -= self._held_bytes

    def grow(self, count: int) -> None:
        """Reserve `count` more bytes. Raise Backpressure if the other requests leave too little room."""
        others = self._budget.held_bytes - self._held_bytes
        if others and self._budget.held_bytes + count > self._budget.limit:
            raise Backpressure(f"the collector is busy: {self._budget.held_bytes} bytes of requests are held")
        self._held_bytes += count
        self._budget.held_bytes += count


async def read_body(request: Request, reservation: ByteReservation, limit: int, *, decompress: bool) -> bytes:
    """Return the body. Raise RequestTooLarge as soon as it exceeds the limit, UndecodableRequest, Backpressure."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise RequestTooLarge(limit)  # before a client that waits for `100 Continue` sends the body
    body = bytearray()
    decompressor = _GzipDecompressor() if decompress else None
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if decompressor is not None:
            chunk = decompressor.feed(chunk, limit - len(body) + 1)
        if max(received, len(body) + len(chunk)) > limit:
            raise RequestTooLarge(limit)
        reservation.grow(len(chunk))
        body += chunk
    if decompressor is not None:
        decompressor.finish()
    return bytes(body)


class _GzipDecompressor:
    """Decompressor of gzip chunks; consecutive members form one body."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._begun = False

    def feed(self, compressed: bytes, max_bytes: int) -> bytes:
        """Decompress the next chunk, to at most `max_bytes` bytes."""
        decompressed = bytearray()
        while compressed and len(decompressed) < max_bytes:
            self._begun = True
            member = self._member or zlib.decompressobj(_GZIP_WINDOW)
            try:
                decompressed += member.decompress(compressed, max_bytes - len(decompressed))
            except zlib.error as error:
                raise UndecodableRequest(f"the body is not gzip: {error}") from None
            compressed = member.unused_data
            self._member = None if member.eof else member
        return bytes(decompressed)

    def finish(self) -> None:
        """Raise UndecodableRequest if the input ends in the middle of a member."""
        if self._member is not None:
            raise UndecodableRequest("the body is not gzip: it ends too early")
