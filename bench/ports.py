"""Free loopback ports, for servers that need a port number."""

from __future__ import annotations

from spanproof.collector.receive.addresses import open_listener


def find_free_port() -> int:
    """Return a port that is free now."""
    with open_listener("127.0.0.1:0") as listener:
        return int(listener.getsockname()[1])
