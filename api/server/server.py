"""``spanproof serve``: collector and API in one process over one store."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

from msgspec import Struct
from starlette.types import ASGIApp

from spanproof.api.http.run_manager import RunManager
from spanproof.api.server.app import make_app
from spanproof.api.server.self_tracing_endpoint import TraceSelfEndpoint
from spanproof.assertions.triggers.allowed_targets import AllowedTargets
from spanproof.collector.calls.service_rules import ServiceRules, store_rules
from spanproof.collector.receive.addresses import open_listener, replace_port
from spanproof.collector.receive.http_server import LimitedServer, make_http_server
from spanproof.collector.receive.receiver import Receiver, freeze_loaded_objects
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.storage.metrics import Metrics
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.retention import Retention, RetentionLimits

SignalHandler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None


class Server(Struct, frozen=True):
    """A collector with its API that serves until SIGINT or SIGTERM."""

    db: str
    otlp_grpc: str
    otlp_http: str
    api: str
    options: ReceiverOptions
    rules: ServiceRules
    limits: RetentionLimits
    allowed_targets: AllowedTargets
    memory_bytes: int
    trace_self: TraceSelfEndpoint | None = None
    proofs: Path | None = None

    def run(self, echo: Callable[[str], None]) -> None:
        """Serve; `echo` receives a line with all addresses first. Raises UserError."""
        listener = open_listener(self.api)
        with (
            listener,
            Store.open(self.db, settings={"memory_limit": f"{self.memory_bytes}B"}, telemetry=Metrics()) as store,
            Retention(store, self.limits),
            _trace_store(
                store, self.trace_self
            ) as wrap,  # ends after the receiver, so that it traces the receiver's end
            Receiver(store, self.otlp_grpc, self.otlp_http, self.options) as receiver,
            RunManager(store, self.allowed_targets) as run_manager,
        ):
            if self.trace_self:
                self.trace_self.reject_own_address(receiver.grpc_address, receiver.http_address)
            store_rules(store, self.rules)
            server = make_http_server(
                wrap(make_app(store, run_manager, self.options.tokens, self.proofs)), self.options
            )
            previous_handlers = _install_signal_handlers(server)
            scheme = "https" if self.options.tls else "http"
            echo(
                f"spanproof: OTLP/gRPC {receiver.grpc_address}  OTLP/HTTP {receiver.http_address}"
                f"  API {scheme}://{replace_port(self.api, listener.getsockname()[1])}  store {self.db}"
            )
            freeze_loaded_objects()
            try:
                server.run(sockets=[listener])
            finally:
                for number, handler in previous_handlers.items():
                    signal.signal(number, handler)


@contextmanager
def _trace_store(store: Store, endpoint: TraceSelfEndpoint | None) -> Iterator[Callable[[ASGIApp], ASGIApp]]:
    """Trace the work of the store if there is an endpoint, and yield a function that adds tracing to an app."""
    if endpoint is None:
        yield lambda app: app
        return
    from spanproof.api.server.self_tracing import SelfTracer  # the SDK is slow to import

    with SelfTracer(endpoint.url) as tracer:
        store.telemetry.start_span = tracer.start_span
        yield tracer.wrap_app


def _install_signal_handlers(server: LimitedServer) -> dict[int, SignalHandler]:
    """Stop the server at SIGINT and SIGTERM; return the previous handlers.

    While it runs, uvicorn handles these signals itself. At its end it raises the signal again, which is not a failure.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    return {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
