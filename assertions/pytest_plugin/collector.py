"""Collector of a pytest session: receives spans of processes started in the session, and of its own process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

import pytest

from spanproof.assertions.pytest_plugin.in_process import AttachedProviders
from spanproof.assertions.pytest_plugin.settings import PluginSettings, read_settings
from spanproof.collector.calls.service_rules import store_rules
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import UserError

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
TRACES_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
SCHEDULE_DELAY: Final = "OTEL_BSP_SCHEDULE_DELAY"
SCHEDULE_DELAY_MS: Final = 200


@dataclass(frozen=True, slots=True)
class Collector:
    """Embedded collector; ``http_endpoint`` and ``grpc_endpoint`` are URLs.

    ``environment`` makes processes export to it. It is set while the collector runs, and child processes inherit it.
    """

    # pytest shows the repr when a test fails: it must be short and must not contain variables, which may be secret
    store: Store = field(repr=False)
    http_endpoint: str
    grpc_endpoint: str
    environment: Mapping[str, str] = field(repr=False)
    settings: PluginSettings = field(repr=False)
    run_id: str = field(default_factory=lambda: token_hex(8))
    taps: AttachedProviders = field(default_factory=AttachedProviders, repr=False)

    @property
    def endpoint(self) -> str:
        """The endpoint in ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return self.environment[ENDPOINT]

    def receive_from(self, provider: object) -> None:
        """Receive the spans of a tracer provider of this process, in addition to its other exporters.

        Only a provider that exports elsewhere and is not the global one needs it.
        """
        self.taps.add(provider, self.grpc_endpoint)


@contextmanager
def open_collector(config: pytest.Config) -> Iterator[Collector]:
    """Receive spans, and set the environment for exporters, until the end of the session."""
    settings = read_settings(config)
    if problem := find_shared_address(config, settings):
        pytest.fail(problem, pytrace=False)
    try:
        with Store.open() as store, Receiver(store, settings.otlp_grpc, settings.otlp_http) as receiver:
            store_rules(store, settings.rules)
            http, grpc = f"http://{receiver.http_address}", f"http://{receiver.grpc_address}"
            collector = Collector(store, http, grpc, make_environment(os.environ, http, grpc), settings)
            with _set_environment(collector.environment):
                try:
                    yield collector
                finally:
                    collector.taps.close()
    except UserError as error:
        pytest.fail(str(error), pytrace=False)


def make_environment(current: Mapping[str, str], http: str, grpc: str) -> dict[str, str]:
    """Return the environment for exporters; it uses gRPC if the current environment requests it."""
    protocol = current.get(TRACES_PROTOCOL) or current.get(PROTOCOL) or "http/protobuf"
    return {
        ENDPOINT: grpc if protocol == "grpc" else http,
        PROTOCOL: protocol,
        SCHEDULE_DELAY: current.get(SCHEDULE_DELAY) or str(SCHEDULE_DELAY_MS),
    }


@contextmanager
def _set_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Set variables and remove those with precedence over them; restore all at the end."""
    names = (*environment, TRACES_ENDPOINT, TRACES_PROTOCOL)
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            os.environ.pop(name, None)
        os.environ.update(before)


def find_shared_address(config: pytest.Config, settings: PluginSettings) -> str | None:
    """Return an error if xdist workers would share an address; each worker has its own collector."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    for option, address in (("grpc", settings.otlp_grpc), ("http", settings.otlp_http)):
        if workers > 1 and not address.endswith(":0"):
            return (
                f"--spanproof-otlp-{option} {address} is one address, but each of {workers} workers needs its own;"
                " leave it out, or run without -n"
            )
    return None
