"""Two hundred concurrent readers while spans arrive: no request is rejected, and no span is lost."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from spanproof.bench.spans import make_requests
from spanproof.tests.command import FREE, FREE_PORTS, Running, find_address

READERS, ROUNDS = 200, 2
REQUESTS = (
    ("GET", "/api/v1/traces?limit=20", None),
    ("GET", "/api/v1/services", None),
    ("GET", "/api/v1/calls", None),
    ("POST", "/api/v1/query", {"query": "p95(duration(gateway)) by http.route over last 1h"}),
    ("GET", "/metrics", None),
)


def test_concurrent_readers_and_senders_succeed(start: Callable[..., Running], tmp_path: Path) -> None:
    line = start("serve", "--db", tmp_path / "spans.duckdb", *FREE_PORTS, "--api", FREE).read_line()
    api, otlp = (f"http://{find_address(line, name)}" for name in ("API", "OTLP/HTTP"))
    done = threading.Event()
    export_statuses: list[int] = []

    def send() -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            for body in make_requests(64, templates=4):
                answer = client.post(
                    f"{otlp}/v1/traces", content=body, headers={"content-type": "application/x-protobuf"}
                )
                export_statuses.append(answer.status_code)
                if done.wait(0.05):
                    return

    async def read_all() -> Counter[int]:
        limits = httpx.Limits(max_connections=READERS)
        async with httpx.AsyncClient(base_url=api, trust_env=False, timeout=120, limits=limits) as client:

            async def read(number: int) -> list[int]:
                requests = itertools.islice(
                    itertools.cycle(REQUESTS), number % len(REQUESTS), number % len(REQUESTS) + ROUNDS
                )
                return [(await client.request(method, path, json=json)).status_code for method, path, json in requests]

            return Counter(itertools.chain(*await asyncio.gather(*(read(number) for number in range(READERS)))))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        status_counts = asyncio.run(read_all())
    finally:
        done.set()
        sender.join()
    assert status_counts == {200: READERS * ROUNDS}
    assert set(export_statuses) == {200}
    metrics = httpx.get(f"{api}/metrics", trust_env=False, timeout=60).text
    assert f"spanproof_spans_stored {64.0 * len(export_statuses)}\n" in metrics
