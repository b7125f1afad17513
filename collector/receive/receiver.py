"""OTLP receiver: both transports on one event loop, in a separate thread."""

from __future__ import annotations

import asyncio
import atexit
import gc
import threading
from concurrent.futures import Future
from contextlib import closing
from typing import TYPE_CHECKING, Self

from spanproof.collector.receive.addresses import AddressUnavailable, open_listener, replace_port
from spanproof.collector.receive.grpc_endpoint import make_grpc_server
from spanproof.collector.receive.http_endpoint import make_otlp_app
from spanproof.collector.receive.http_server import make_http_server
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.receive.signals import make_signals
from spanproof.collector.storage.ingest_queue import IngestQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from spanproof.collector.storage.store import Store

GRPC_ADDRESS = "127.0.0.1:4317"
HTTP_ADDRESS = "127.0.0.1:4318"
STOP_TIMEOUT_S = 10.0
_GC_THRESHOLD = 50_000  # the command line sets a higher one while it imports; a pause is then too long


def freeze_loaded_objects() -> None:
    """Exclude all current objects from Python's garbage collection, and collect new ones at the usual pace.

    A collection of them takes a tenth of a second, in which no span is received and no verdict is given. Only for
    processes that spanproof owns.
    """
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    atexit.register(gc.unfreeze)  # at exit, all objects are collected again


class Receiver:
    """Receiver of OTLP into a store, from `start` (or `with`) to `stop`.

    After `start`, `grpc_address` and `http_address` contain the actual ports.

    Example:
        >>> from spanproof.collector.receive.receiver import Receiver
        >>> from spanproof.collector.storage.store import Store
        >>> with Store.open() as store, Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as receiver:
        ...     receiver.http_address.startswith("127.0.0.1:")
        True

    """

    def __init__(
        self,
        store: Store,
        grpc_address: str = GRPC_ADDRESS,
        http_address: str = HTTP_ADDRESS,
        options: ReceiverOptions = ReceiverOptions(),  # noqa: B008 (frozen)
    ) -> None:
        self.grpc_address = grpc_address
        self.http_address = http_address
        self._store = store
        self._options = options
        self._thread: threading.Thread | None = None
        self._request_stop: Callable[[float], None] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start both transports; return once both listen. Raise `AddressUnavailable`, and then neither listens."""
        ready: Future[Callable[[float], None]] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="spanproof-receiver", daemon=True
        )
        self._thread.start()
        try:
            self._request_stop = ready.result()
        except BaseException:
            self._thread.join(STOP_TIMEOUT_S)  # the thread releases the store
            raise

    def stop(self, timeout: float = STOP_TIMEOUT_S) -> bool:
        """Answer the received requests, then stop; return False if that takes longer than `timeout` seconds."""
        if self._thread is None or self._request_stop is None:
            return True
        self._request_stop(timeout)
        self._request_stop = None
        self._thread.join(timeout)
        return not self._thread.is_alive()

    async def _serve(self, ready: Future[Callable[[float], None]]) -> None:
        options = self._options
        ingest = IngestQueue(self._store, max_queued_bytes=options.max_bytes_in_flight, redaction=options.redaction)
        signals, telemetry = make_signals(ingest), self._store.telemetry
        timeout = STOP_TIMEOUT_S
        try:
            open_listener(self.grpc_address).close()  # fails with a clearer message than gRPC's
            # gRPC comes last: a server that is never started does not release its port
            with closing(open_listener(self.http_address)) as http_socket:
                grpc_server = make_grpc_server(signals, options, telemetry)
                self.grpc_address = replace_port(
                    self.grpc_address, _bind_grpc_port(grpc_server, self.grpc_address, options)
                )
                self.http_address = replace_port(self.http_address, http_socket.getsockname()[1])
                await grpc_server.start()
                http_server = make_http_server(
                    make_otlp_app(signals, options, telemetry),
                    options,
                    lambda outcome: telemetry.count_request("http", "none", outcome),
                )
                serving = asyncio.create_task(http_server.serve(sockets=[http_socket]))
                timeout = await _wait_for_stop(ready)
                http_server.stop(timeout)
                await asyncio.gather(grpc_server.stop(timeout), serving)
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            await asyncio.to_thread(ingest.drain_and_stop, timeout)


async def _wait_for_stop(ready: Future[Callable[[float], None]]) -> float:
    """Report that the receiver is ready, with a function that requests the stop; return the stop timeout in seconds."""
    loop = asyncio.get_running_loop()
    stop_requested: asyncio.Future[float] = loop.create_future()

    def request_stop(timeout: float) -> None:
        loop.call_soon_threadsafe(stop_requested.set_result, timeout)

    ready.set_result(request_stop)
    return await stop_requested


def _bind_grpc_port(server: grpc.aio.Server, address: str, options: ReceiverOptions) -> int:
    try:
        if options.tls:
            return int(server.add_secure_port(address, options.tls.make_grpc_credentials()))
        return int(server.add_insecure_port(address))
    except RuntimeError as error:  # another process bound the port first
        raise AddressUnavailable(f"cannot listen on {address}: {error}") from error
