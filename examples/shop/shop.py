"""The whole shop: its processes start and stop together."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from spanproof.examples.shop.services import NATS_URL_VARIABLE, SERVICES, Service, name_url_variable

PACKAGE = "spanproof.examples.shop"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 3.0
LOG_LINES = 15


class ShopError(RuntimeError):
    """The shop could not be started."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process of the shop and its log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Shop:
    """The running shop.

    >>> with Shop.start("127.0.0.1:4317", "127.0.0.1:4318") as shop:  # doctest: +SKIP
    ...     httpx.post(f"{shop.base_url}/checkout", json={"cart": "c-42", "amount": 1999})
    """

    def __init__(self, log_dir: Path | None = None) -> None:
        self._keep_logs = log_dir is not None
        self.log_dir = log_dir or Path(tempfile.mkdtemp(prefix="spanproof-shop-"))
        self.base_url = ""
        self._children: list[Child] = []
        # Every child holds the reading end. Whenever this process ends, the system closes the writing end, and the
        # children stop.
        self._tether, self._tether_writer = os.pipe()
        self._stopped = False

    @classmethod
    def start(
        cls,
        otlp_grpc: str,
        otlp_http: str,
        on_progress: Callable[[str], None] = lambda _: None,
        log_dir: Path | None = None,
    ) -> Self:
        """Start every process and wait until each is ready.

        `otlp_grpc` and `otlp_http` are `HOST:PORT` or URLs. Logs are written to `log_dir`, by
        default a temporary directory that is removed with the shop.
        """
        shop = cls(log_dir)
        try:
            shop._start_all(as_url(otlp_grpc), as_url(otlp_http), on_progress)
        except BaseException:  # Ctrl-C too must stop all processes
            shop.stop()
            raise
        return shop

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each service, and of the broker's guard process."""
        return {child.name: child.process.pid for child in self._children}

    def stop(self) -> None:
        """Terminate every process, and kill those that do not end in time. Repeated calls have no effect."""
        if self._stopped:
            return
        self._stopped = True
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in self._children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # Each is the leader of a process group; the group of the broker's guard contains the broker.
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
        os.close(self._tether_writer)
        os.close(self._tether)
        if not self._keep_logs:
            shutil.rmtree(self.log_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start_all(self, otlp_grpc: str, otlp_http: str, on_progress: Callable[[str], None]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        with _open_listeners(SERVICES) as listeners:
            urls = {name: f"http://127.0.0.1:{listener.getsockname()[1]}" for name, listener in listeners.items()}
            environment = _clean_environment() | {name_url_variable(name): url for name, url in urls.items()}
            environment[NATS_URL_VARIABLE] = self._start_broker(environment, deadline)
            on_progress("nats is ready")
            for service in SERVICES:
                endpoint = otlp_grpc if service.otlp_protocol == "grpc" else otlp_http
                self._start_service(
                    service,
                    listeners[service.name],
                    environment
                    | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": service.otlp_protocol},
                )
        # Now only the children hold the sockets: if one ends, connections to it are refused.
        for child in self._children[1:]:
            _wait_until_healthy(child, urls[child.name], deadline)
            on_progress(f"{child.name} is ready")
        self.base_url = urls["gateway"]

    def _start_broker(self, environment: dict[str, str], deadline: float) -> str:
        child = self._spawn("nats", [f"{PACKAGE}.broker", str(self.log_dir)], environment)
        while time.monotonic() < deadline:
            for ports in self.log_dir.glob("*.ports"):
                # The file may be incomplete.
                with suppress(ValueError):
                    return str(json.loads(ports.read_text())["nats"][0])
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(0.01)
                break
        raise ShopError(_describe_failure(child))

    def _start_service(self, service: Service, listener: socket.socket, environment: dict[str, str]) -> None:
        descriptor = listener.fileno()
        arguments = [PACKAGE, service.name, "--listen-fd", str(descriptor)]
        self._spawn(service.name, arguments, environment, descriptor)

    def _spawn(self, name: str, arguments: list[str], environment: dict[str, str], *descriptors: int) -> Child:
        log = self.log_dir / f"{name}.log"
        with log.open("wb") as output, _defer_interrupts():
            process = subprocess.Popen(  # noqa: S603  our own modules
                [sys.executable, "-m", *arguments, "--tether-fd", str(self._tether)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(self._tether, *descriptors),
                process_group=0,  # only this process receives Ctrl-C of the terminal, and stops the children in order
            )
            child = Child(name, process, log)
            self._children.append(child)
        return child


@contextmanager
def _defer_interrupts() -> Iterator[None]:
    """Defer Ctrl-C, so that every started process is recorded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deferred: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: deferred.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if deferred:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _open_listeners(services: tuple[Service, ...]) -> Iterator[dict[str, socket.socket]]:
    """Listen on a free port for each service, so that all addresses are known before a service starts."""
    listeners: dict[str, socket.socket] = {}
    try:
        for service in services:
            listeners[service.name] = socket.create_server(("127.0.0.1", 0))
        yield listeners
    finally:
        for listener in listeners.values():
            listener.close()


def _clean_environment() -> dict[str, str]:
    """Return the environment without variables that would redirect the spans."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return inherited | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def _wait_until_healthy(child: Child, url: str, deadline: float) -> None:
    """Poll the health check until it succeeds; a request waits in the socket until the service has started."""
    host = url.removeprefix("http://")
    while (left_s := deadline - time.monotonic()) > 0:
        connection = http.client.HTTPConnection(host, timeout=left_s)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.client.OK:
                connection.close()
                return
        connection.close()
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(0.05)
            break
    raise ShopError(_describe_failure(child))


def _describe_failure(child: Child) -> str:
    status = child.process.poll()
    problem = "was not ready in time" if status is None else f"ended with status {status}"
    lines = child.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n  ".join([f"`{child.name}` {problem}; its last lines:", *(lines or ["(none)"])])


def as_url(address: str) -> str:
    """Return the URL of an address given as `HOST:PORT` or as a URL."""
    return address if "://" in address else f"http://{address}"
