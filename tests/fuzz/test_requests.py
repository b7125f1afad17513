"""Whatever is sent, the server answers soon, says no 5xx but 503, keeps its memory, and goes on.

``SPANPROOF_FUZZ_REQUESTS`` is the number of inputs. Where it is set, others are made at every run; a failure names the
seed, which makes the same ones again as ``SPANPROOF_FUZZ_SEED``.
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

WANTED = int(os.environ.get("SPANPROOF_FUZZ_REQUESTS", "1000"))
ANEW = os.urandom(4).hex() if "SPANPROOF_FUZZ_REQUESTS" in os.environ else "1"
SEED = os.environ.get("SPANPROOF_FUZZ_SEED", ANEW)
SOON_S = 1.0
MOST_MIB = 1024
HANG_S = 30.0
SENDERS = 32
FINAL = re.compile(rb"^HTTP/1.1 ([2-5]\d\d)", re.M)
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

    def peak_mib(self) -> int:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) // 1024


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
class Tally:
    """What was answered, and what must not have been."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    # to be tried again alone: where many share two cores, who waits need not have sent what takes long
    late: list[int] = field(default_factory=list)

    def note(self, index: int, answer: str, took_s: float, allowed: Allowed) -> None:
        self.answers[answer] += 1
        self.slowest_s = max(self.slowest_s, took_s)
        if took_s > SOON_S or (answer == TIMED_OUT and not allowed(answer)):
            self.late.append(index)
        elif not allowed(answer):
            self.wrong.append(f"input {index}: {answer} after {took_s:.2f} s")


@pytest.mark.timeout(0)
async def test_no_request_harms_the_server(server: Server, tmp_path: Path) -> None:
    tally = Tally()
    async with grpc.aio.insecure_channel(server.grpc, [("grpc.max_send_message_length", -1)]) as channel:

        async def send(index: int, tally: Tally) -> None:
            chance = Random(f"{SEED}:{index}")  # noqa: S311 (no secret)
            match index % 4:
                case 0:
                    await send_message(channel, tally, index, chance)
                case 1:
                    await send_frame(server, tally, index, chance)
                case _:
                    await send_body(server, tally, index, chance)

        remaining = iter(range(WANTED))

        async def send_many() -> None:
            for index in remaining:
                if tally.wrong or server.process.poll() is not None:
                    return
                await send(index, tally)

        await asyncio.gather(*(send_many() for _ in range(SENDERS)))
        alone = Tally()
        for index in tally.late:
            await send(index, alone)

    sent = tally.answers.total()
    peak = server.peak_mib() if server.process.poll() is None else 0
    slowest = f"slowest {tally.slowest_s * 1000:.0f} ms, alone {alone.slowest_s * 1000:.0f} ms"
    print(f"\n{sent} inputs of seed {SEED}, {slowest}, peak {peak} MiB: {dict(sorted(tally.answers.items()))}")
    assert tally.wrong + alone.wrong == [], f"seed {SEED}"
    assert alone.late == [], f"seed {SEED}"
    assert server.process.poll() is None
    assert sent == WANTED
    assert peak < MOST_MIB
    log = server.log.read_text(errors="replace")
    assert [word for word in ("Traceback", "panicked", "Error") if word in log] == []
    # and it goes on, with a store that opens
    good = httpx.post(f"http://{server.http}/v1/traces", content=TRACES[0], headers={"content-type": PROTOBUF})
    assert (good.status_code, good.content) == (200, b"")
    server.process.terminate()
    assert server.process.wait(30) == 0
    with Store.open(tmp_path / "spans.duckdb") as store, store.cursor() as cursor:
        ((count,),) = cursor.execute("SELECT count(*) FROM spans").fetchall()
    assert count >= 6


def make_body(chance: Random) -> tuple[str, str, str, bytes]:
    """Make a path, a media type, an encoding and a body that do not go together."""
    path = chance.choice(("/v1/traces", "/v1/traces", "/v1/traces", "/v1/logs", "/v1/metrics"))
    protobuf, text = chance.choice(BODIES[path])
    if chance.random() < 0.5:
        media_type, body = PROTOBUF, mutate_bytes(chance, protobuf, chance.choice(TRACES))
    else:
        media_type = JSON
        match chance.randrange(10):
            case 0:
                body = nest(chance)
            case 1 | 2 | 3 | 4:
                body = mutate_bytes(chance, text, protobuf)
            case _:
                body = mutate_json(chance, text)
    packing = ""
    if chance.random() < 0.3:
        packing = "gzip"
        body = gzip.compress(body, 1, mtime=0)
        match chance.randrange(6):
            case 0:
                body = mutate_bytes(chance, body, body)
            case 1:
                body += chance.choice(BOMBS)
            case 2:
                body += chance.randbytes(chance.choice((1, 8, 100)))
    return path, media_type, packing, body


async def send_body(server: Server, tally: Tally, index: int, chance: Random) -> None:
    """Send a body that is wrong, in a request that is right."""
    path, media_type, packing, body = make_body(chance)
    encoding = f"content-encoding: {packing}\r\n" if packing else ""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media_type}\r\n{encoding}"
    whole = head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
    await exchange(server, tally, index, whole, {"200", "400", "413", "503"}.__contains__)


async def send_frame(server: Server, tally: Tally, index: int, chance: Random) -> None:
    """Send a request whose framing is wrong."""
    path, media_type, packing, body = make_body(chance)
    framed = frame(chance, path, body, media_type, packing)
    if chance.random() < 0.2:
        framed = mutate_bytes(chance, framed, body)
    await exchange(server, tally, index, framed, lambda status: status == "503" or status[0] not in "5?")


async def exchange(server: Server, tally: Tally, index: int, sent: bytes, allowed: Allowed) -> None:
    """Send, and read until there is an answer or the server hangs up; one of the two comes soon, whatever was sent."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*split_address(server.http))
    answer, status = b"", b"none"
    try:
        async with asyncio.timeout(HANG_S):
            writer.write(sent)
            while status in (b"none", b"100") and (more := await reader.read(65536)):
                answer += more
                status = (FINAL.findall(answer) or [status])[-1]
    except TimeoutError:
        status = b"?"
    except OSError:  # it has hung up while more was coming, as it may
        pass
    finally:
        writer.close()
    tally.note(index, status.decode(), time.monotonic() - began, allowed)


async def send_message(channel: grpc.aio.Channel, tally: Tally, index: int, chance: Random) -> None:
    """Send a message over gRPC."""
    body = mutate_bytes(chance, chance.choice(TRACES), chance.choice(TRACES))
    compression = grpc.Compression.Gzip if chance.random() < 0.3 else None
    began = time.monotonic()
    try:
        await channel.unary_unary(EXPORT)(body, compression=compression, timeout=30)
        code = grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        code = error.code()
    tally.note(index, code.name, time.monotonic() - began, CODES.__contains__)
