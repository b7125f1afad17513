from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.store import Store
from spanproof.tests.command import FREE, Running, find_address
from spanproof.tests.interop.senders import OTELCOL, TELEMETRYGEN, Collector, CollectorStarter, Ids
from spanproof.tests.ports import find_free_address


@pytest.fixture(autouse=True, scope="session")
def built() -> None:
    missing = [str(path) for path in (OTELCOL, TELEMETRYGEN) if not path.exists()]
    assert not missing, f"{', '.join(missing)} does not exist; `make interop` builds it"


@dataclass(slots=True)
class Served:
    """`spanproof serve`, which can be stopped and restarted on the same addresses and the same file."""

    start: Callable[..., Running]
    path: Path
    running: Running | None = None
    grpc: str = field(default_factory=find_free_address)
    http: str = field(default_factory=find_free_address)
    api: str = ""

    def begin(self) -> None:
        ports = ("--otlp-grpc", self.grpc, "--otlp-http", self.http)
        self.running = self.start("serve", "--db", self.path, *ports, "--api", FREE)
        self.api = find_address(self.running.read_line(), "API")

    def count_accepted(self) -> int:
        """Return the number of spans accepted since the start."""
        text = httpx.get(f"http://{self.api}/metrics", trust_env=False).text
        (family,) = [each for each in text_string_to_metric_families(text) if each.name == "spanproof_spans_accepted"]
        return int(family.samples[0].value)

    def end(self, number: int) -> None:
        assert self.running is not None
        self.running.signal(number)
        self.running.finish()

    def read_ids(self) -> Ids:
        """Stop the server, and return the ids of the stored spans, each of which is stored once."""
        assert self.running is not None
        self.running.stop()
        assert self.running.finish().code == 0
        with Store.open(self.path) as store:
            derive_calls(store)
            with store.cursor() as cursor:
                rows = cursor.execute(
                    "SELECT replace(trace_id::VARCHAR, '-', ''), printf('%016x', span_id) FROM spans"
                ).fetchall()
        ids = set(rows)
        assert len(ids) == len(rows)
        return ids


@pytest.fixture
def served(start: Callable[..., Running], tmp_path: Path) -> Served:
    served = Served(start, tmp_path / "spans.duckdb")
    served.begin()
    return served


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorStarter]:
    """Return a function that starts a Collector; running ones are stopped at the end."""
    started: list[Collector] = []

    def start_collector(exporter: str, **settings: Any) -> Collector:
        started.append(Collector(tmp_path, exporter, **settings))
        return started[-1]

    yield start_collector
    for each in started:
        each.stop()
