from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import open_client
from spanproof.tests.command import FREE_PORTS, Finished, Running, Service, find_address

Starter = Callable[..., Running]
Prove = Callable[..., Finished]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write


@pytest.fixture
def prove(start: Starter, service: Service) -> Prove:
    """Run proofs against the service, which exports its spans to the address in the first line."""

    def prove(*arguments: object) -> Finished:
        running = start("run", *arguments, *FREE_PORTS, BASE_URL=service.base_url)
        service.export_to(find_address(running.read_line(), "HTTP"))
        return running.finish()

    return prove


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open() as store:
        yield store


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Return a client of the API over the store."""
    with open_client(store) as client:
        yield client
