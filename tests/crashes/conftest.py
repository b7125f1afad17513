from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spanproof.tests.command import FREE, FREE_PORTS, Running, find_address
from spanproof.tests.crashes.sender import Sender

Server = tuple[Running, str]
Serve = Callable[[Path], Server]


@pytest.fixture
def serve(start: Callable[..., Running]) -> Serve:
    """Return a function that starts `spanproof serve` on a file; it returns the process and its gRPC address."""

    def serve(path: Path) -> Server:
        running = start("serve", "--db", path, *FREE_PORTS, "--api", FREE)
        return running, find_address(running.read_line(), "OTLP/gRPC")

    return serve


@pytest.fixture
def sender() -> Sender:
    return Sender()
