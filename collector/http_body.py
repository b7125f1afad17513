"""The body of an HTTP request: read and unpacked as it comes, and no further than the limits go."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from spanproof.collector.decode import Undecodable
from spanproof.collector.ingest import Backpressure
from spanproof.collector.refusals import TooLarge

if TYPE_CHECKING:
    from typing import Self

    from starlette.requests import Request

_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Room:
    """How many bytes of bodies may be held at once, over all requests of an event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def reserve(self) -> Share:
        """Begin with nothing; what the share has grown to is given back at its end."""
        return Share(self)


class Share:
    """What one request holds of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._room.held -= self._held

    def grow(self, count: int) -> None:
        """Take `count` bytes more. Raises Backpressure where others leave no room for them."""
        others = self._room.held - self._held
        if others and self._room.held + count > self._room.limit:
            raise Backpressure(f"the collector is busy: {self._room.held} bytes of requests are held")
        self._held += count
        self._room.held += count


async def read_body(request: Request, share: Share, limit: int, *, unpack: bool) -> bytes:
    """Read the body. Raises TooLarge as soon as it is, Undecodable, Backpressure."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge(limit)  # before a client that waits for `100 Continue` sends any of it
    body = bytearray()
    unpacker = _Unpacker() if unpack else None
    sent = 0
    async for chunk in request.stream():
        sent += len(chunk)
        if unpacker is not None:
            chunk = unpacker.feed(chunk, limit - len(body) + 1)
        if max(sent, len(body) + len(chunk)) > limit:
            raise TooLarge(limit)
        share.grow(len(chunk))
        body += chunk
    if unpacker is not None:
        unpacker.finish()
    return bytes(body)


class _Unpacker:
    """Unpacks gzip piece by piece; several members follow each other as one."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._begun = False

    def feed(self, packed: bytes, most: int) -> bytes:
        """Unpack the next piece, to `most` bytes at most."""
        unpacked = bytearray()
        while packed and len(unpacked) < most:
            self._begun = True
            member = self._member or zlib.decompressobj(_GZIP_WINDOW)
            try:
                unpacked += member.decompress(packed, most - len(unpacked))
            except zlib.error as error:
                raise Undecodable(f"the body is not gzip: {error}") from None
            packed = member.unused_data
            self._member = None if member.eof else member
        return bytes(unpacked)

    def finish(self) -> None:
        """Refuse what ends in the middle."""
        if self._member is not None:
            raise Undecodable("the body is not gzip: it ends too early")
