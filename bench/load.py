"""The load client: sends requests, up to `--in-flight` at a time, and prints the results as a line of JSON.

Example: python -m spanproof.bench.load grpc 127.0.0.1:4317 --requests 1000 --in-flight 64
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator

import grpc

from spanproof.bench.spans import ENCODINGS, make_requests

Send = Callable[[int, bytes], Awaitable[bool]]

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_RATE_SPANS = 1_000_000
_RETRY_TIMEOUT_S = 60.0
_MEDIA_TYPES = {"protobuf": "application/x-protobuf", "gzip": "application/x-protobuf", "json": "application/json"}


async def run(args: argparse.Namespace) -> dict[str, object]:
    """Send all requests; resend the ones that are rejected temporarily."""
    bodies: Iterator[bytes] = itertools.islice(
        make_requests(args.spans, encoding=args.encoding, seed=args.seed), args.requests
    )
    if args.encoding != "protobuf":
        bodies = iter(list(bodies))  # encoding these takes longer than sending them
    numbered = enumerate(bodies)
    latencies: list[float] = []
    ends: list[float] = []
    rejected = 0

    async def work(send: Send, worker: int) -> None:
        nonlocal rejected
        for number, body in numbered:
            if args.rate:
                await asyncio.sleep(started + number * args.spans / args.rate - time.perf_counter())
            begin = time.perf_counter()
            while not await send(worker, body):
                rejected += 1
                if time.perf_counter() - begin > _RETRY_TIMEOUT_S:
                    raise TimeoutError("the server accepts no more requests")
                await asyncio.sleep(0.2)
            ends.append(time.perf_counter())
            latencies.append(ends[-1] - begin)

    async with _Grpc(args.address) if args.transport == "grpc" else _Http(args.address, args.encoding) as send:
        started = time.perf_counter()
        await asyncio.gather(*(work(send, worker) for worker in range(args.in_flight)))
    seconds = ends[-1] - started
    latencies.sort()
    part = _RATE_SPANS // args.spans
    rates = {}
    if len(ends) >= 2 * part:
        rates = {
            "first_per_s": part * args.spans / (ends[part - 1] - started),
            "last_per_s": part * args.spans / (ends[-1] - ends[-1 - part]),
        }
    return {
        "spans": args.spans * len(ends),
        "spans_per_s": args.spans * len(ends) / seconds,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
        "refused": rejected,
        **rates,
    }


class _Grpc:
    """Sends over one gRPC channel."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])

    async def __aenter__(self) -> Send:
        export: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(EXPORT)

        async def send(_: int, body: bytes) -> bool:
            try:
                answer = await export(body)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return False
                raise
            return _check(answer)

        return send

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


class _Http:
    """Sends over one persistent connection per worker."""

    def __init__(self, address: str, encoding: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._head = f"POST /v1/traces HTTP/1.1\r\nhost: {address}\r\ncontent-type: {_MEDIA_TYPES[encoding]}\r\n" + (
            "content-encoding: gzip\r\n" if encoding == "gzip" else ""
        )
        self._open: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Send:
        return self._send

    async def _send(self, worker: int, body: bytes) -> bool:
        if worker not in self._open:
            self._open[worker] = await asyncio.open_connection(self._host, int(self._port))
        reader, writer = self._open[worker]
        writer.write(f"{self._head}content-length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        answer = await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        status = int(head.split(maxsplit=2)[1])
        if status == 503:
            return False
        if status != 200:
            raise RuntimeError(f"{status}: {answer!r}")
        return _check(answer.removeprefix(b"{}"))

    async def __aexit__(self, *_: object) -> None:
        for _reader, writer in self._open.values():
            writer.close()


def _check(answer: bytes) -> bool:
    if answer:
        raise RuntimeError(f"spans were rejected: {answer!r}")
    return True


def main() -> None:
    """Read the command line, send, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=("grpc", "http"))
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--encoding", choices=ENCODINGS, default="protobuf")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--spans", type=int, default=512, help="spans per request")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rate", type=float, help="spans per second; by default as many as the server accepts")
    parser.add_argument("--seed", type=int, default=1)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
