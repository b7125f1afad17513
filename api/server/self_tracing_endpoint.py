"""The OTLP/gRPC endpoint of spanproof's own traces, which must not be spanproof itself."""

from __future__ import annotations

import os
import re

from msgspec import Struct

from spanproof.collector.receive.addresses import is_endpoint_of_listener
from spanproof.collector.user_errors import UserError

# the first one that is set takes effect
_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DEFAULT_PORT = 4317
_ENDPOINT_PATTERN = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+]|[^\s:/?#@\[\]]+)(:(?P<port>\d+))?/?")


class TraceSelfEndpoint(Struct, frozen=True):
    """An endpoint, as a URL and in parts."""

    url: str
    host: str
    port: int

    def reject_own_address(self, *addresses: str) -> None:
        """Raise UserError if the endpoint is one of these addresses, at which this server listens."""
        for address in addresses:
            if is_endpoint_of_listener(address, self.host, self.port):
                raise UserError(f"--trace-self: {self.url} is this server; its own traces need another endpoint")


def read_trace_self_endpoint(text: str) -> TraceSelfEndpoint:
    """Read a URL, or `env` for the URL in the standard variable. Raises ValueError."""
    if text == "env":
        text = next(filter(None, map(os.environ.get, _VARIABLES)), "")
        if not text:
            raise ValueError(f"--trace-self env: {_VARIABLES[-1]} is not set")
    shape = _ENDPOINT_PATTERN.fullmatch(text)
    port = int(shape["port"] or _DEFAULT_PORT) if shape else 0
    if shape is None or not 0 < port < 2**16:
        raise ValueError(
            f"--trace-self: {text!r} is not an OTLP/gRPC endpoint; write one such as http://127.0.0.1:4317"
        )
    return TraceSelfEndpoint(f"{shape['scheme']}://{shape['host']}:{port}", shape["host"].strip("[]"), port)
