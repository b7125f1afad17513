"""TLS for both transports: a certificate with its key, and the CA of client certificates."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

import grpc
from msgspec import Struct


class TlsFiles(Struct, frozen=True):
    """PEM files, validated by `read_tls`."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def make_ssl_context(self) -> ssl.SSLContext:
        """Return the context for an HTTP server. Raise ValueError for files that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for path in (self.certificate, self.key, *([self.client_ca] if self.client_ca else [])):
            try:
                path.read_bytes()
            except OSError as error:
                raise ValueError(f"{path}: {error.strerror}") from None
        try:
            context.load_cert_chain(self.certificate, self.key, self._reject_password)
        except ssl.SSLError as error:
            reason = error.reason or "no certificate or no key in PEM"
            raise ValueError(f"{self.certificate} and {self.key} cannot be used: {_format_reason(reason)}") from None
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise ValueError(
                    f"{self.client_ca} cannot be used: {_format_reason(error.reason or 'no PEM')}"
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _reject_password(self) -> NoReturn:
        raise ValueError(
            f"{self.key}: the key is encrypted; decrypt it first, because a server cannot ask for the password"
        )

    def make_grpc_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials for a gRPC server."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )


def read_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """Return the validated files, or None if none is given. Raise ValueError for unusable or incomplete files."""
    if certificate is None or key is None:
        if certificate is None and key is None and client_ca is None:
            return None
        raise ValueError("TLS needs both a certificate and its key")
    tls = TlsFiles(certificate, key, client_ca)
    tls.make_ssl_context()
    return tls


def _format_reason(reason: str) -> str:
    return reason.lower().replace("_", " ")
