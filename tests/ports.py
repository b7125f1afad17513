"""Free loopback ports, for servers that need a port number and for addresses without a server."""

from __future__ import annotations

import secrets
import socket
from typing import Final

# Systems assign ephemeral ports (of outgoing connections and of servers on port 0) from 32768 or 49152 upwards.
# A lower port stays free between being found and being used, however many tests run in parallel.
NON_EPHEMERAL_PORTS: Final = range(16_000, 32_000)


def find_free_port() -> int:
    """Return a free port that no system assigns as an ephemeral one."""
    while True:
        port = secrets.choice(NON_EPHEMERAL_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def find_free_address() -> str:
    """Return a free loopback address."""
    return f"127.0.0.1:{find_free_port()}"


def listens(port: int) -> bool:
    """Return whether a server listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
