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
    """Starts `spanproof serve` on a file; gives the process and where it takes spans."""

    def serve(path: Path) -> Server:
        running = start("serve", "--db", path, *FREE_PORTS, "--api", FREE)
        return running, find_address(running.read_line(), "OTLP/gRPC")

    return serve


@pytest.fixture
def sender() -> Sender:
    return Sender()
