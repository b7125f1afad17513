"""Ports of loopback that a server is to be given by number, or where nobody is to listen."""

from __future__ import annotations

import secrets
import socket
from typing import Final

# Systems take the port of an outgoing connection, and of a server that leaves it open, from 32768 or 49152 upwards.
# What is below stays free between being found and being used, however many tests run beside.
NEVER_TAKEN_UNASKED: Final = range(16_000, 32_000)


def find_free_port() -> int:
    """Return a port that nobody listens on, and that no system hands out by itself."""
    while True:
        port = secrets.choice(NEVER_TAKEN_UNASKED)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def find_free_address() -> str:
    """Return such a port with its host."""
    return f"127.0.0.1:{find_free_port()}"


def listens(port: int) -> bool:
    """Tell whether something listens on a port."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0
