"""For every input, the server responds soon, sends no 5xx except 503, limits its memory, and keeps running.

``TESTS_FUZZ_REQUESTS`` is the number of inputs. If it is set, each run uses a new seed; a failure names the seed,
and ``TESTS_FUZZ_SEED`` repeats its inputs.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc
import httpx
import pytest

from spanproof.collector.receive.addresses import split_address
from spanproof.collector.storage.store import Store
from spanproof.tests.command import COMMAND, FREE, FREE_PORTS, find_address
from spanproof.tests.fuzz.mutate import frame, mutate_bytes, mutate_json, nest
from spanproof.tests.fuzz.requests import make_bodies

INPUT_COUNT = int(os.environ.get("TESTS_FUZZ_REQUESTS", "1000"))
DEFAULT_SEED = os.urandom(4).hex() if "TESTS_FUZZ_REQUESTS" in os.environ else "1"
SEED = os.environ.get("TESTS_FUZZ_SEED", DEFAULT_SEED)
MAX_RESPONSE_S = 1.0
MAX_MEMORY_MIB = 1024
TIMEOUT_S = 30.0
SENDERS = 32
FINAL_STATUS = re.compile(rb"^HTTP/1.1 ([2-5]\d\d)", re.M)
TIMED_OUT = "408"
BOMBS = [gzip.compress(bytes(size), mtime=0) for size in (1, 10**5, 10**7)]
BODIES = make_bodies()
TRACES = [body for body, _ in BODIES["/v1/traces"]]
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
CODES = {"OK", "INVALID_ARGUMENT", "UNAVAILABLE"}


Allowed = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[bytes]
    grpc: str
    http: str
    log: Path

    def read_peak_mib(self) -> int:
        match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert match
        return int(match[1]) // 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    log = tmp_path / "log"
    command = [COMMAND, "serve", *FREE_PORTS, "--api", FREE, "--db", tmp_path / "spans.duckdb",
               "--max-message-bytes", "2000000", "--receive-timeout", "0.2"]  # fmt: skip
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        try:
            yield Server(process, find_address(line, "OTLP/gRPC"), find_address(line, "OTLP/HTTP"), log)
        finally:
            process.terminate()
            process.wait(30)


@dataclass(slots=True)
class Responses:
    """Counts of the responses, and the unexpected ones."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    unexpected: list[str] = field(default_factory=list)
    # repeated alone at the end: with many senders on two cores, a late response may be caused by another input
    late: list[int] = field(default_factory=list)

    def record(self, index: int, outcome: str, took_s: float, allowed: Allowed) -> None:
        self.counts[outcome] += 1
        self.slowest_s = max(self.slowest_s, took_s)
        if took_s > MAX_RESPONSE_S or (outcome == TIMED_OUT and not allowed(outcome)):
            self.late.append(index)
        elif not allowed(outcome):
            self.unexpected.append(f"input {index}: {outcome} after {took_s:.2f} s")


@pytest.mark.timeout(0)
async def test_invalid_requests_do_not_harm_server(server: Server, tmp_path: Path) -> None:
    responses = Responses()
    async with grpc.aio.insecure_channel(server.grpc, [("grpc.max_send_message_length", -1)]) as channel:

        async def send(index: int, responses: Responses) -> None:
            random = Random(f"{SEED}:{index}")  # noqa: S311 (not used for secrets)
            match index % 4:
                case 0:
                    await send_message(channel, responses, index, random)
                case 1:
                    await send_frame(server, responses, index, random)
                case _:
                    await send_body(server, responses, index, random)

        remaining = iter(range(INPUT_COUNT))

        async def send_many() -> None:
            for index in remaining:
                if responses.unexpected or server.process.poll() is not None:
                    return
                await send(index, responses)

        await asyncio.gather(*(send_many() for _ in range(SENDERS)))
        repeated = Responses()
        for index in responses.late:
            await send(index, repeated)

    response_count = responses.counts.total()
    peak = server.read_peak_mib() if server.process.poll() is None else 0
    slowest = f"slowest {responses.slowest_s * 1000:.0f} ms, alone {repeated.slowest_s * 1000:.0f} ms"
    counts = dict(sorted(responses.counts.items()))
    print(f"\n{response_count} inputs of seed {SEED}, {slowest}, peak {peak} MiB: {counts}")
    assert responses.unexpected + repeated.unexpected == [], f"seed {SEED}"
    assert repeated.late == [], f"seed {SEED}"
    assert server.process.poll() is None
    assert response_count == INPUT_COUNT
    assert peak < MAX_MEMORY_MIB
    log = server.log.read_text(errors="replace")
    assert [word for word in ("Traceback", "panicked", "Error") if word in log] == []
    # the server still works, and its store can be opened
    good = httpx.post(f"http://{server.http}/v1/traces", content=TRACES[0], headers={"content-type": PROTOBUF})
    assert (good.status_code, good.content) == (200, b"")
    server.process.terminate()
    assert server.process.wait(30) == 0
    with Store.open(tmp_path / "spans.duckdb") as store, store.cursor() as cursor:
        ((count,),) = cursor.execute("SELECT count(*) FROM spans").fetchall()
    assert count >= 6


def make_body(random: Random) -> tuple[str, str, str, bytes]:
    """Return a path, a media type, an encoding and a body that do not match."""
    path = random.choice(("/v1/traces", "/v1/traces", "/v1/traces", "/v1/logs", "/v1/metrics"))
    protobuf, text = random.choice(BODIES[path])
    if random.random() < 0.5:
        media_type, body = PROTOBUF, mutate_bytes(random, protobuf, random.choice(TRACES))
    else:
        media_type = JSON
        match random.randrange(10):
            case 0:
                body = nest(random)
            case 1 | 2 | 3 | 4:
                body = mutate_bytes(random, text, protobuf)
            case _:
                body = mutate_json(random, text)
    encoding = ""
    if random.random() < 0.3:
        encoding = "gzip"
        body = gzip.compress(body, 1, mtime=0)
        match random.randrange(6):
            case 0:
                body = mutate_bytes(random, body, body)
            case 1:
                body += random.choice(BOMBS)
            case 2:
                body += random.randbytes(random.choice((1, 8, 100)))
    return path, media_type, encoding, body


async def send_body(server: Server, responses: Responses, index: int, random: Random) -> None:
    """Send an invalid body in a valid HTTP request."""
    path, media_type, encoding, body = make_body(random)
    encoding_field = f"content-encoding: {encoding}\r\n" if encoding else ""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media_type}\r\n{encoding_field}"
    request = head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
    await send_raw(server, responses, index, request, {"200", "400", "413", "503"}.__contains__)


async def send_frame(server: Server, responses: Responses, index: int, random: Random) -> None:
    """Send a request with invalid framing."""
    path, media_type, encoding, body = make_body(random)
    framed = frame(random, path, body, media_type, encoding)
    if random.random() < 0.2:
        framed = mutate_bytes(random, framed, body)
    await send_raw(server, responses, index, framed, lambda status: status == "503" or status[0] not in "5?")


async def send_raw(server: Server, responses: Responses, index: int, request: bytes, allowed: Allowed) -> None:
    """Send, and read until the final status or the end of the connection, which must arrive in time."""
    started_at = time.monotonic()
    reader, writer = await asyncio.open_connection(*split_address(server.http))
    response, status = b"", b"none"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            writer.write(request)
            while status in (b"none", b"100") and (chunk := await reader.read(65536)):
                response += chunk
                status = (FINAL_STATUS.findall(response) or [status])[-1]
    except TimeoutError:
        status = b"?"
    except OSError:  # the server may close the connection before it has read everything
        pass
    finally:
        writer.close()
    responses.record(index, status.decode(), time.monotonic() - started_at, allowed)


async def send_message(channel: grpc.aio.Channel, responses: Responses, index: int, random: Random) -> None:
    """Send a message over gRPC."""
    body = mutate_bytes(random, random.choice(TRACES), random.choice(TRACES))
    compression = grpc.Compression.Gzip if random.random() < 0.3 else None
    started_at = time.monotonic()
    try:
        await channel.unary_unary(EXPORT)(body, compression=compression, timeout=30)
        code = grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        code = error.code()
    responses.record(index, code.name, time.monotonic() - started_at, CODES.__contains__)
