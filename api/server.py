"""``spanproof serve``: collector and API in one process over one store."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import uvicorn
from starlette.types import ASGIApp

from spanproof.api.app import make_app
from spanproof.api.endpoint import Endpoint
from spanproof.api.run_keeper import RunKeeper
from spanproof.assertions.triggers.targets import Targets
from spanproof.collector.addresses import listen, replace_port
from spanproof.collector.failures import Unusable
from spanproof.collector.http_server import make_http_server
from spanproof.collector.options import Options
from spanproof.collector.receiver import Receiver, leave_alone_what_is_loaded
from spanproof.collector.retention import Limits, Retention
from spanproof.collector.rules import Rules, declare_rules
from spanproof.collector.store import Store

Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None


@dataclass(frozen=True, slots=True)
class Server:
    """Serves until SIGINT or SIGTERM."""

    db: str
    otlp_grpc: str
    otlp_http: str
    api: str
    options: Options
    rules: Rules
    limits: Limits
    targets: Targets
    memory: int
    trace_self: Endpoint | None = None
    proofs: Path | None = None

    def run(self, say: Callable[[str], None]) -> None:
        """Serve; the first line said names all addresses. Raises Unusable."""
        listener = listen(self.api)
        with (
            listener,
            Store.open(self.db, settings={"memory_limit": f"{self.memory}B"}) as store,
            Retention(store, self.limits),
            _trace(store, self.trace_self) as wrap,  # to its end, after that of the receiver
            Receiver(store, self.otlp_grpc, self.otlp_http, self.options) as receiver,
            RunKeeper(store, self.targets) as keeper,
        ):
            if self.trace_self:
                self.trace_self.refuse_itself(receiver.grpc_address, receiver.http_address)
            declare_rules(store, self.rules)
            server = make_http_server(wrap(make_app(store, keeper, self.options.tokens, self.proofs)), self.options)
            before = _stop_when_signalled(server)
            scheme = "https" if self.options.tls else "http"
            say(
                f"spanproof: OTLP/gRPC {receiver.grpc_address}  OTLP/HTTP {receiver.http_address}"
                f"  API {scheme}://{replace_port(self.api, listener.getsockname()[1])}  store {self.db}"
            )
            leave_alone_what_is_loaded()
            try:
                server.run(sockets=[listener])
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)


@contextmanager
def _trace(store: Store, endpoint: Endpoint | None) -> Iterator[Callable[[ASGIApp], ASGIApp]]:
    """Trace the work of the store, where that is wanted; gives what is to be done to apps."""
    if endpoint is None:
        yield lambda app: app
        return
    try:
        from spanproof.api.own_traces import OwnTraces
    except ImportError as error:
        raise Unusable(
            f"--trace-self needs its extra packages ({error.name} is missing): pip install 'spanproof[telemetry]'"
        ) from None
    with OwnTraces(endpoint.url) as own:
        store.telemetry.trace = own.trace
        yield own.wrap


def _stop_when_signalled(server: uvicorn.Server) -> dict[int, Handler]:
    """Stop at SIGINT and SIGTERM from now on; return what was done before.

    While it runs, uvicorn does so itself, and in the end raises the signal again, which is no failure here.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    return {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
