"""The clients: programs named web, each of which asks inventory through one library."""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spanproof.tests.field.plans import GRPC, HTTP, QUEUE

HERE: Final = Path(__file__).parent / "clients"
BUILT: Final = Path(__file__).parents[2] / ".field"
START_S: Final = 60.0
NOTHING: Final = frozenset[str]()
EVERYTHING: Final = frozenset({"refused", "reset", "hang", "429", "503", "slow-503"})


@dataclass(frozen=True, slots=True)
class Client:
    """A library under test, and the program that uses it; `program` serves all clients of that name."""

    name: str
    language: str
    command: tuple[str, ...]
    folder: Path
    protocol: str = HTTP
    hidden: frozenset[str] = NOTHING  # faults after which it tries again below its span

    @property
    def program(self) -> tuple[str, ...]:
        return (str(self.folder), *self.command)


def _python(name: str, module: str, hidden: frozenset[str] = NOTHING, protocol: str = HTTP) -> Client:
    command = (str(BUILT / "python/bin/python"), "web.py", module)
    return Client(name, "python", command, HERE / "python", protocol, hidden)


def _node(name: str, protocol: str = HTTP, hidden: frozenset[str] = NOTHING) -> Client:
    command = ("node", "--import", "./tracing.mjs", "web.mjs", name)
    return Client(name, "node", command, HERE / "node", protocol, hidden)


def _go(name: str, protocol: str = HTTP) -> Client:
    return Client(name, "go", (str(BUILT / "go/web"), name), HERE / "go", protocol)


def _java(name: str, *hidden: str) -> Client:
    agent = f"-javaagent:{BUILT / 'java/opentelemetry-javaagent.jar'}"
    jars = f"{BUILT / 'java/classes'}:{BUILT / 'java/lib'}/*"
    command = ("java", agent, "-XX:TieredStopAtLevel=1", "-cp", jars, "field.Web")
    return Client(name, "java", command, HERE / "java", hidden=frozenset(hidden))


CLIENTS: Final = {
    client.name: client
    for client in (
        _python("tenacity-httpx", "tenacity_httpx"),
        _python("requests-retry", "requests_urllib3", EVERYTHING),
        _python("requests-retry-urllib3-spans", "requests_urllib3_spans", EVERYTHING),
        _python("urllib3-retry", "urllib3_retry", EVERYTHING),
        _python("aiohttp-retry", "aiohttp_retry_client", frozenset({"reset"})),
        _python("pybreaker-requests", "pybreaker_requests"),
        _python("celery-redis", "celery_client", protocol=QUEUE),
        _node("axios-retry"),
        _node("got"),
        _node("undici-retry-agent"),
        _node("p-retry-fetch"),
        _node("opossum-undici"),
        _node("grpc-js", GRPC, EVERYTHING),
        _go("retryablehttp"),
        _go("backoff"),
        _go("gobreaker"),
        _go("grpc-go", GRPC),
        _java("okhttp", "refused"),
        _java("resilience4j-retry-jdk", "refused", "reset"),
        _java("resilience4j-breaker-okhttp"),
    )
}


class Web:
    """A running program, which serves on a loopback port."""

    def __init__(self, client: Client, otlp_http: str, redis: str = "") -> None:
        self.process = subprocess.Popen(
            client.command,
            cwd=client.folder,
            env=make_environment(otlp_http) | {"FIELD_REDIS": redis},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        try:
            self.url = f"http://127.0.0.1:{int(self._read_line())}"
        except BaseException:
            self.stop()
            raise

    def _read_line(self) -> bytes:
        assert self.process.stdout is not None
        deadline, line = time.monotonic() + START_S, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 1) if ready else b""
            assert more, f"{self.process.args!r} did not start: {line!r}"
            line += more
        return line

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def make_environment(otlp_http: str) -> dict[str, str]:
    """Return the environment of the programs; the names of the Java agent's settings are its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FIELD_"))}
    return inherited | {
        "FIELD_OTLP": f"http://{otlp_http}",
        "OTEL_SERVICE_NAME": "web",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{otlp_http}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_JAVAAGENT_LOGGING": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "NO_PROXY": "*",
    }
