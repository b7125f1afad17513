"""The options of commands that receive spans: where, from whom, how much, and what is not to be kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spanproof.collector.receive.addresses import require_loopback_addresses, split_address

if TYPE_CHECKING:
    from spanproof.collector.receive.receiver_options import ReceiverOptions

_ORIGIN_PATTERN = re.compile(r"\*|https?://[^/\s]+")

OtlpGrpc = Annotated[
    str,
    typer.Option(
        "--otlp-grpc", metavar="HOST:PORT", envvar="SPANPROOF_OTLP_GRPC", help="OTLP over gRPC; port 0: a free one."
    ),
]
OtlpHttp = Annotated[
    str,
    typer.Option(
        "--otlp-http", metavar="HOST:PORT", envvar="SPANPROOF_OTLP_HTTP", help="OTLP over HTTP; port 0: a free one."
    ),
]


@dataclass(frozen=True, slots=True)
class ReceiverOptionGroup:
    """What a command is told of receiving; each field is an option of it."""

    otlp_grpc: OtlpGrpc = "127.0.0.1:4317"
    otlp_http: OtlpHttp = "127.0.0.1:4318"
    insecure_no_auth: Annotated[
        bool,
        typer.Option("--insecure-no-auth", help="Allow addresses other than loopback, open to whoever reaches them."),
    ] = False
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="SPANPROOF_TOKEN_FILE", help="Admit only who shows a token of this file, one a line."
        ),
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Serve TLS with this certificate (PEM, with its chain).")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The key of --tls-cert (PEM).")] = None
    tls_client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Admit only clients with a certificate of these CAs (PEM).")
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let pages of this origin send spans, * any; may be repeated."),
    ] = None
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Do not keep this attribute's value; * stands for anything; may be repeated."),
    ] = None
    redact_value: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="Do not keep what looks like this, in any value; may be repeated."),
    ] = None
    redact_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More such rules, lines of `key NAME` or `value REGEX`.")
    ] = None
    max_message_bytes: Annotated[
        int, typer.Option(min=1, metavar="BYTES", help="The largest request taken, as sent and once unpacked.")
    ] = 64 * 2**20
    max_bytes_in_flight: Annotated[
        int,
        typer.Option(min=1, metavar="BYTES", help="How much may wait to be stored; more is told to come back."),
    ] = 256 * 2**20
    max_connections: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many connections each address takes.")
    ] = 1024
    receive_timeout: Annotated[
        float,
        typer.Option(min=0.01, metavar="SECONDS", help="In which a request's headers, and then its body, must come."),
    ] = 30.0

    def make_receiver_options(self, *more_addresses: str) -> ReceiverOptions:
        """Read the files that are named. Raises ValueError for what cannot be used, and for open addresses."""
        from spanproof.collector.otlp.redaction import make_redaction
        from spanproof.collector.receive.authentication import read_tokens
        from spanproof.collector.receive.receiver_options import ReceiverOptions
        from spanproof.collector.receive.tls import read_tls

        addresses = (self.otlp_grpc, self.otlp_http, *more_addresses)
        for address in addresses:
            split_address(address)
        for origin in self.cors_origin or ():
            if not _ORIGIN_PATTERN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; write what browsers send, such as https://shop.example")
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
