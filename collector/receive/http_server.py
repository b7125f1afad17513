"""HTTP server with limits on connections and on the time in which a request must arrive."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import Server

from spanproof.collector.otlp.json_mapping import dump_json

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from uvicorn.server import ServerState

    from spanproof.collector.receive.receiver_options import ReceiverOptions

# Longer than exporters' default interval of five seconds: an export on a connection that is being closed would fail.
_KEEP_ALIVE_S = 75
_TICK_S = 0.1
_TICKS_PER_DAY = 864_000

# gRPC names of the codes
_OUTCOME_NAMES = {400: "invalid_argument", 408: "deadline_exceeded", 503: "unavailable"}

_HTTP2_PREFACE = b"PRI * HTTP/2.0"
_USE_HTTP = "use the gRPC address, or OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"

_log = logging.getLogger(__name__)
_uvicorn_log = logging.getLogger(f"{__name__}.uvicorn")
_uvicorn_log.setLevel(logging.ERROR)  # uvicorn would log a warning for every invalid request


def make_http_server(
    app: Callable[..., Any], options: ReceiverOptions, count_outcome: Callable[[str], None] = lambda _: None
) -> LimitedServer:
    """Return a server for an ASGI app; `serve` takes the sockets to listen on.

    `count_outcome` receives the outcome of requests that are rejected before they reach the app.
    """
    config = Config(
        app,
        http=H11Protocol,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    return LimitedServer(config, options, count_outcome)


class LimitedServer(Server):
    """A server that limits connections and the time in which a request arrives."""

    def __init__(self, config: Config, options: ReceiverOptions, count_outcome: Callable[[str], None]) -> None:
        super().__init__(config)
        self._options = options
        self._count = count_outcome
        self._stopping = asyncio.Event()
        self._http2_warned = False

    def stop(self, timeout_s: float) -> None:
        """Stop within `timeout_s`, without waiting for the next tick of uvicorn's loop; call it from the event loop."""
        self.config.timeout_graceful_shutdown = math.ceil(timeout_s)
        self.should_exit = True
        self._stopping.set()

    def _warn_of_http2(self, client: str) -> None:
        """Log the first connection with HTTP/2: its exporter tries again and again, and only its own log says why."""
        if not self._http2_warned:
            self._http2_warned = True
            _log.warning("a gRPC exporter (%s) connected to the HTTP address: %s", client, _USE_HTTP)

    async def main_loop(self) -> None:
        """Tick ten times a second, as uvicorn does, and return at once when the server is stopped."""
        tick = 0
        while not await self.on_tick(tick):
            tick = (tick + 1) % _TICKS_PER_DAY
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, but do not wait for connections where there are none."""
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        for each in sockets or ():
            each.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with settings that uvicorn does not offer: those of the protocol, and the TLS handshake timeout."""
        await self.lifespan.startup()
        options, tls = self._options, self._options.tls
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                lambda: _LimitedProtocol(self.config, self.server_state, options, self._count, self._warn_of_http2),
                sock=each,
                ssl=tls.make_ssl_context() if tls else None,
                ssl_handshake_timeout=options.receive_timeout_s if tls else None,
            )
            for each in sockets or ()
        ]
        self.started = True


class _LimitedProtocol(H11Protocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        options: ReceiverOptions,
        count_outcome: Callable[[str], None],
        warn_of_http2: Callable[[str], None],
    ) -> None:
        super().__init__(config, server_state, app_state={})
        self.logger = _uvicorn_log
        self._options = options
        self._count_outcome = count_outcome
        self._warn_of_http2 = warn_of_http2
        # the part of a request that is arriving, None for headers, else the body; and its deadline
        self._awaited_part: object = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        super().connection_made(transport)
        if len(self.connections) > self._options.max_connections:
            self._reject(503, f"there are {self._options.max_connections} connections already", ("retry-after", "1"))
        else:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if data.startswith(_HTTP2_PREFACE) and self.conn.their_state is h11.IDLE:
            self._warn_of_http2(":".join(map(str, self.client or ("unknown",))))
            self._reject(400, f"this is HTTP/2; a gRPC exporter must {_USE_HTTP}")
            return
        super().data_received(data)
        self._update_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_deadline()

    def send_400_response(self, msg: str) -> None:
        self._reject(400, "this is not HTTP/1.1, or its headers are too long")

    def _update_deadline(self) -> None:
        """Set a deadline for the headers, and then for the body, so that slow senders do not hold connections."""
        if self.transport.is_closing():
            return
        in_body = self.conn.their_state is h11.SEND_BODY
        if in_body or (self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]):
            part = self.cycle if in_body else None
            if self._deadline is None or part is not self._awaited_part:
                self._awaited_part = part
                self._set_deadline()
        else:
            self._clear_deadline()

    def _set_deadline(self) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(self._options.receive_timeout_s, self._reject_late_request)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _reject_late_request(self) -> None:
        self._reject(408, f"the request did not arrive within {self._options.receive_timeout_s:g} s")

    def _reject(self, status: int, message: str, *headers: tuple[str, str]) -> None:
        """Send a response, if none has been started, and close the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # so that the app sends no response
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._count_outcome(_OUTCOME_NAMES[status])
            body = dump_json({"message": message}).encode()
            fields = [("content-type", "application/json"), ("connection", "close"), *headers]
            fields.append(("content-length", str(len(body))))
            response = h11.Response(status_code=status, headers=fields, reason=STATUS_PHRASES[status])
            is_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
            for event in (response, h11.Data(data=b"" if is_head else body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
