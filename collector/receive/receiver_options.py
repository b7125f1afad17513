"""Options of a receiver: limits, authentication, redaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from spanproof.collector.otlp.redaction import NO_REDACTION, Redaction
from spanproof.collector.storage.ingest_queue import MAX_QUEUED_BYTES

if TYPE_CHECKING:
    from spanproof.collector.receive.authentication import AccessTokens
    from spanproof.collector.receive.tls import TlsFiles


class ReceiverOptions(Struct, frozen=True):
    """Options of a receiver; the defaults suit a developer's machine."""

    # of one request, compressed and decompressed
    max_message_bytes: int = 64 * 2**20
    # of requests being received over HTTP, and, separately, of requests not yet answered
    max_bytes_in_flight: int = MAX_QUEUED_BYTES
    # per transport
    max_connections: int = 1024
    # for the headers of an HTTP request, and, separately, for its body
    receive_timeout_s: float = 30
    tokens: AccessTokens | None = None
    tls: TlsFiles | None = None
    # origins of pages whose scripts may send spans; `*` for all
    cors_origins: tuple[str, ...] = ()
    redaction: Redaction = NO_REDACTION

    @property
    def requires_authentication(self) -> bool:
        """Whether senders must authenticate."""
        return self.tokens is not None or (self.tls is not None and self.tls.client_ca is not None)
