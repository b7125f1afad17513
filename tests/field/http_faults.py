"""HTTP/1.1 server that fails as planned: one listener for each service of a run."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, Self

from spanproof.tests.field.arrivals import Attempt, Outcome, RunLog, classify_status
from spanproof.tests.field.plans import HANG_S, SLOW_S
from spanproof.tests.field.refusals import Refusals
from spanproof.tests.field.server_spans import ServerSpans, end_http

BODY: Final = b'{"item": "bolt", "stock": 12, "shelf": "north, third row"}'
REASONS: Final = {"200": "OK", "302": "Found", "404": "Not Found", "409": "Conflict", "429": "Too Many Requests"}


class FaultListener:
    """One service of one run, on an address of its own: the planned faults of each item, in order of arrival."""

    def __init__(
        self,
        log: RunLog,
        service: str,
        faults: Mapping[str, tuple[str, ...]],
        host: str,
        spans: ServerSpans | None,
        refusals: Refusals | None,
    ) -> None:
        self._log, self._service, self._spans, self._refusals = log, service, spans, refusals
        self._faults = {item: list(each) for item, each in faults.items()}
        self._arrived: dict[str, int] = defaultdict(int)
        self._socket = socket.socket()
        self._socket.bind((host, 0))
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self.address: tuple[str, int] = self._socket.getsockname()

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    async def start(self) -> None:
        """Listen, or wait until the planned number of connections was refused."""
        if self._next_fault("1") != "refused":
            await self._listen()
        else:
            assert self._refusals is not None
            self._refusals.watch(self.address, self._refuse)

    def _refuse(self) -> None:
        self._log.open(self._service, "1", "/items/1", "refused").close(Outcome.RETRYABLE)
        self._arrived["1"] += 1
        if self._next_fault("1") != "refused":
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=self._socket)

    def _next_fault(self, item: str) -> str:
        planned = self._faults[item]
        return planned[min(self._arrived[item], len(planned) - 1)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await _read_head(reader)) is not None:
                if not await self._answer(head, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, head: tuple[str, str, dict[str, str]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request. Return whether the connection stays open."""
        method, path, headers = head
        item = path.partition("?")[0].rpartition("/")[2]
        if item.endswith("-moved"):
            fault = "200"
        else:
            fault = self._next_fault(item)
            self._arrived[item] += 1
        attempt = self._log.open(self._service, headers.get("x-field-ask", ""), path, fault)
        address = f"{self.address[0]}:{self.address[1]}"
        span = self._spans and self._spans.start_http(self._service, method, path, headers, address)
        self._log.unfinished += 1
        try:
            if fault == "reset":
                attempt.close(Outcome.RETRYABLE)
                end_http(span, None, "ConnectionResetError")
                _reset(writer)
                return False
            if fault == "truncated":
                writer.write(_format_head("200", len(BODY)) + BODY[: len(BODY) // 2])
                await writer.drain()
                attempt.close(Outcome.RETRYABLE)
                end_http(span, 200)
                return False
            if fault == "hang":
                await _hang(attempt, reader)
            elif fault.startswith("slow"):
                await asyncio.sleep(SLOW_S)
            status = "302" if fault == "redirect" else fault[-3:] if fault[-3:].isdigit() else "200"
            location = {"location": f"{path}-moved"} if fault == "redirect" else {}
            attempt.close(classify_status(int(status)))
            end_http(span, int(status))
            writer.write(_format_head(status, len(BODY), location) + BODY)
            await writer.drain()
            return fault != "hang"
        finally:
            self._log.unfinished -= 1

    async def close(self) -> None:
        if self._refusals is not None:
            self._refusals.forget(self.address)
        if self._server is not None:
            self._server.close()
        self._socket.close()


async def _hang(attempt: Attempt, reader: asyncio.StreamReader) -> None:
    """Wait as a busy handler does, which does not notice that its caller has gone; log when that one goes."""

    async def watch() -> None:
        with suppress(ConnectionError):
            await reader.read(1)
        attempt.close(Outcome.CUT)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(HANG_S)
    watching.cancel()


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]] | None:
    """Read a request, with its body; return its method, path and headers, or None at the end of the connection."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    method, path, _ = first.split(" ")
    return method, path, headers


def _format_head(status: str, length: int, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Service Unavailable')}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST in place of FIN."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class FaultLoop:
    """The event loop of all listeners, in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faults", daemon=True)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def make(self, factory: Callable[[], FaultListener]) -> FaultListener:
        """Make a listener in the loop, and start it."""

        async def make() -> FaultListener:
            listener = factory()
            await listener.start()
            return listener

        listener: FaultListener = self.run(make())
        return listener

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def cancel() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self.run(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
