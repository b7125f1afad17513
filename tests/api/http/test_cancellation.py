"""Cancellation: a query or run ends soon after its client disconnects or the run is cancelled.

The queries would take minutes: the critical path of a trace whose root waits for very many spans one after another.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.tests.api.http.gateway import store_requests
from spanproof.tests.command import FREE, FREE_PORTS, Running, find_address, wait_until

CHILDREN = 20_000
MS = 1_000_000
# far longer than a cancellation takes, far shorter than the query or the server's timeout
SOON_S = 20.0
BUSY_S = 0.7
SLOW_QUERY = "max(critical(gateway)) over last 1h"
CLAIMS = "".join(f"  expect budget 1h {{ gateway: {hours}h }}\n" for hours in range(1, 9))
PROOF = f'proof "slow" {{\n  given traces over last 1h\n{CLAIMS}}}\n'


def make_slow_trace() -> bytes:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "gateway"
    spans = resource_spans.scope_spans.add().spans
    begin = time.time_ns() - 60_000 * MS
    trace, root = os.urandom(16), (1).to_bytes(8, "big")
    spans.add(
        trace_id=trace, span_id=root, name="GET /", kind=2,
        start_time_unix_nano=begin, end_time_unix_nano=begin + (CHILDREN + 1) * MS,
    )  # fmt: skip
    for number in range(CHILDREN):
        spans.add(
            trace_id=trace, span_id=(number + 2).to_bytes(8, "big"), parent_span_id=root, name="step", kind=1,
            start_time_unix_nano=begin + number * MS, end_time_unix_nano=begin + (number + 1) * MS,
        )  # fmt: skip
    return request.SerializeToString()


@dataclass(frozen=True, slots=True)
class Server:
    pid: int
    address: str
    client: httpx.Client

    def read_cpu_s(self) -> float:
        """Return the CPU time of the process."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_until_busy(self) -> None:
        begin = self.read_cpu_s()
        wait_until(lambda: self.read_cpu_s() > begin + BUSY_S, "the query is executing")

    def wait_until_quiet(self) -> None:
        """Wait until the process is idle for half a second."""
        deadline = time.monotonic() + SOON_S
        while True:
            before = self.read_cpu_s()
            time.sleep(0.5)
            if self.read_cpu_s() - before < 0.1:
                return
            assert time.monotonic() < deadline, "the server is still busy, though the client has disconnected"

    def count_spans(self) -> int:
        answer = self.client.post("/api/v1/query", json={"query": "count(span) over last 1h"}).json()
        return int(answer["groups"][0]["value"])

    def open(self, path: str, document: object) -> socket.socket:
        """Send a request without waiting for the response."""
        host, _, port = self.address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
        body = json.dumps(document).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self.address}\r\ncontent-type: application/json\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return connection


@pytest.fixture
def server(start: Callable[..., Running], tmp_path: Path) -> Iterator[Server]:
    store_requests(tmp_path / "spans.duckdb", make_slow_trace())
    running = start("serve", "--db", "spans.duckdb", *FREE_PORTS, "--api", FREE)
    address = find_address(running.read_line(), "API")
    with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=SOON_S) as client:
        server = Server(running.pid, address, client)
        assert server.count_spans() == CHILDREN + 1  # derives the calls now, so that later queries start at once
        yield server


@pytest.mark.parametrize(
    ("path", "document", "ended"),
    [("/api/v1/query", {"query": SLOW_QUERY}, []), ("/api/v1/gate", {"proof": PROOF}, ["error"])],
)
def test_disconnect_cancels_request(server: Server, path: str, document: object, ended: list[str]) -> None:
    with server.open(path, document) as connection:
        server.wait_until_busy()
        assert not select.select([connection], [], [], 0)[0], "the query ended before it was cancelled"
        connection.close()
        server.wait_until_quiet()
        assert server.count_spans() == CHILDREN + 1
        assert [run["outcome"] for run in server.client.get("/api/v1/runs").json()["runs"]] == ended


def test_cancelled_run_stops_judging(server: Server) -> None:
    run = server.client.post("/api/v1/runs", json={"proof": PROOF}).json()
    server.wait_until_busy()
    assert server.client.post(f"/api/v1/runs/{run['id']}/cancel").status_code == 202
    server.wait_until_quiet()
    ended = server.client.get(f"/api/v1/runs/{run['id']}").json()
    assert (ended["outcome"], ended["proofs"][0]["error"]) == ("error", "the run was cancelled")
    assert ended["proofs"][0]["verdicts"] == []
