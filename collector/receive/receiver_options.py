"""How a receiver is to behave: its limits, whom it admits, and what it must not keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spanproof.collector.otlp.redaction import NO_REDACTION, Redaction
from spanproof.collector.storage.ingest_queue import MAX_QUEUED_BYTES

if TYPE_CHECKING:
    from spanproof.collector.receive.authentication import AccessTokens
    from spanproof.collector.receive.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class ReceiverOptions:
    """What can be set for a receiver; the defaults suit a machine of one's own."""

    # of one request, as sent and once unpacked
    max_message_bytes: int = 64 * 2**20
    # of requests: those being received over HTTP, and again those not yet answered
    max_bytes_in_flight: int = MAX_QUEUED_BYTES
    # for each transport
    max_connections: int = 1024
    # for the headers of an HTTP request, and again for its body
    receive_timeout_s: float = 30
    tokens: AccessTokens | None = None
    tls: TlsFiles | None = None
    # of pages whose scripts may send spans, as browsers name them; `*` for all
    cors_origins: tuple[str, ...] = ()
    redaction: Redaction = NO_REDACTION

    @property
    def requires_authentication(self) -> bool:
        """Tell whether senders have to say who they are."""
        return self.tokens is not None or (self.tls is not None and self.tls.client_ca is not None)
