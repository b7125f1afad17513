from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest

# pytester unloads modules that a run imports, unless they were loaded before; importing these takes a second
PRELOADED = [import_module(f"spanproof.assertions.pytest_plugin.{name}") for name in ("items", "traces_fixture")]
import_module("httpcore")  # httpx imports it with its first client and keeps references to it
# Starts the service of the tests after the collector, as projects do; proofs find it by an environment variable.
CONFTEST = """
import os, pytest
from spanproof.tests.command import open_service

@pytest.fixture(scope="session", autouse=True)
def service(spanproof):
    with open_service() as service:
        service.export_to(spanproof.http_endpoint.removeprefix("http://"))
        os.environ["BASE_URL"] = service.base_url
        yield service
"""
PROOFS = """
let base = env("BASE_URL")

proof "the bank is called" [smoke] {
  when GET "{base}/x"
  expect path shop -> bank
}

proof "payments: :: [are] used" {
  when GET "{base}/x"
  expect path shop -> payments
}

proof "a silent service is unknown" {
  when GET "{base}/silent"
  settle within 10ms
  expect path shop -> bank
}
"""
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a service and a file of three proofs, of which the first passes; other plugins are disabled."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_BSP_SCHEDULE_DELAY", "BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # the plugin is already imported in this process
    monkeypatch.setenv(
        "PYTEST_ADDOPTS", "-p spanproof.assertions.pytest_plugin -W ignore::pytest.PytestAssertRewriteWarning"
    )
    pytester.makeconftest(CONFTEST)
    pytester.makefile(".proof", shop=PROOFS)
    return pytester
