"""Options of commands that receive spans: addresses, authentication, limits, and redaction."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from spanproof.collector.receive.addresses import require_loopback_addresses, split_address

if TYPE_CHECKING:
    from spanproof.collector.receive.receiver_options import ReceiverOptions

_ORIGIN_PATTERN = re.compile(r"\*|https?://[^/\s]+")

OtlpGrpc = Annotated[
    str,
    typer.Option(
        "--otlp-grpc",
        metavar="HOST:PORT",
        envvar="SPANPROOF_OTLP_GRPC",
        help="OTLP over gRPC; port 0 takes a free one.",
    ),
]
OtlpHttp = Annotated[
    str,
    typer.Option(
        "--otlp-http",
        metavar="HOST:PORT",
        envvar="SPANPROOF_OTLP_HTTP",
        help="OTLP over HTTP; port 0 takes a free one.",
    ),
]


class ReceiverOptionGroup(Struct, frozen=True):
    """The options for receiving spans; each field is an option of the command."""

    otlp_grpc: OtlpGrpc = "127.0.0.1:4317"
    otlp_http: OtlpHttp = "127.0.0.1:4318"
    insecure_no_auth: Annotated[
        bool,
        typer.Option("--insecure-no-auth", help="Allow addresses other than loopback without authentication."),
    ] = False
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="SPANPROOF_TOKEN_FILE",
            help="Admit only clients with a token of this file, one per line.",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Serve TLS with this certificate (PEM, with its chain).")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The key of --tls-cert (PEM).")] = None
    tls_client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Admit only clients with a certificate from these CAs (PEM).")
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let web pages of this origin (* for any) send spans; may be repeated."),
    ] = None
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Redact the values of this attribute; * matches any text; may be repeated."),
    ] = None
    redact_value: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="Redact matches of this expression in all values; may be repeated."),
    ] = None
    redact_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More rules of redaction, lines of `key NAME` or `value REGEX`.")
    ] = None
    max_message_bytes: Annotated[
        int, typer.Option(min=1, metavar="BYTES", help="The largest accepted request, as sent and once decompressed.")
    ] = 64 * 2**20
    max_bytes_in_flight: Annotated[
        int,
        typer.Option(
            min=1, metavar="BYTES", help="Bytes that may wait to be stored; further requests must be retried later."
        ),
    ] = 256 * 2**20
    max_connections: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of connections per address.")
    ] = 1024
    receive_timeout: Annotated[
        float,
        typer.Option(min=0.01, metavar="SECONDS", help="Time limit for a request's headers, and then for its body."),
    ] = 30.0

    def make_receiver_options(self, *more_addresses: str) -> ReceiverOptions:
        """Return the options, with the contents of their files.

        Raises ValueError for an invalid value, and for an address other than loopback without authentication.
        """
        from spanproof.collector.otlp.redaction import make_redaction
        from spanproof.collector.receive.authentication import read_tokens
        from spanproof.collector.receive.receiver_options import ReceiverOptions
        from spanproof.collector.receive.tls import read_tls

        addresses = (self.otlp_grpc, self.otlp_http, *more_addresses)
        for address in addresses:
            split_address(address)
        for origin in self.cors_origin or ():
            if not _ORIGIN_PATTERN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; write it as browsers send it, such as https://shop.example"
                )
        options = ReceiverOptions(
            max_message_bytes=self.max_message_bytes,
            max_bytes_in_flight=self.max_bytes_in_flight,
            max_connections=self.max_connections,
            receive_timeout_s=self.receive_timeout,
            tokens=read_tokens(self.token_file) if self.token_file else None,
            tls=read_tls(self.tls_cert, self.tls_key, self.tls_client_ca),
            cors_origins=tuple(self.cors_origin or ()),
            redaction=make_redaction(self.redact or (), self.redact_value or (), self.redact_file),
        )
        if not self.insecure_no_auth and not options.requires_authentication:
            require_loopback_addresses(*addresses)
        return options
