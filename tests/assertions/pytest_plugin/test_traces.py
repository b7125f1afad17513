"""The fixtures ``spanproof`` and ``traces``, with services, commands and code in the process of the test."""

from __future__ import annotations

import os

import pytest

from spanproof.assertions.pytest_plugin.collector import make_environment

HTTP, GRPC = "http://127.0.0.1:1", "http://127.0.0.1:2"

# ## In services and commands

SERVICES = '''
import os, subprocess, sys, httpx, pytest

def call(service, headers):
    httpx.get(service.base_url + "/x", headers=headers)

def test_passes(traces, service):
    call(service, traces.headers)
    traces.expect("path shop -> bank", "count(shop) == 1", quiet="0s")

def test_ignores_other_requests(traces, service):
    call(service, traces.headers)
    call(service, {})
    traces.expect("count(shop) == 1", quiet="0s")

def test_fails(traces, service):
    call(service, traces.headers)
    traces.expect(
        "some shop",
        'path "shop" -> payments',
    )

def test_is_inconclusive(traces):
    traces.expect("some shop", f"path {'shop'} -> bank", within="0s")

def test_invalid_claim(traces):
    traces.expect("path shop -> ")

def test_invalid_duration(traces):
    traces.expect("some shop", within="soon")

COMMAND = """
import os
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
parent = extract({"traceparent": os.environ["TRACEPARENT"]})
provider.get_tracer("t").start_span("work", parent).end()
provider.shutdown()
"""

def test_commands(traces, spanproof):
    assert spanproof.endpoint == spanproof.grpc_endpoint == os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    program = {**os.environ, **traces.environment, "OTEL_SERVICE_NAME": "job"}
    subprocess.run([sys.executable, "-c", COMMAND], env=program, check=True)
    traces.expect('some span job "work"')
'''


def test_claims_concern_traces_of_test(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    project.makepyfile(SERVICES)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    before = read_environment()
    ran = project.runpytest("-v", "--deselect", "shop.proof")
    ran.assert_outcomes(passed=3, failed=4)
    ran.stdout.fnmatch_lines(
        [
            "*::test_passes PASSED*",
            "*::test_ignores_other_requests PASSED*",
            "*::test_commands PASSED*",
            "E       AssertionError: `\"shop\"` called `bank`, not `payments`",
            "E       FAIL  *.py::test_fails   1 passed, 1 failed*",
            "E          --> *.py:19:25",
            "E       19  |         'path \"shop\" -> payments',",
            "E           |               ------    ^^^^^^^^ not taken; nearest: `bank`",
            "E *GET /transfers*",
            "E          = rerun: pytest *.py::test_fails",
            "E       AssertionError: inconclusive: no span of this trace has arrived, but spans of * other traces *",
            "E       INCONCLUSIVE *.py::test_is_inconclusive   2 inconclusive*",
            "E       23  | some shop, path shop -> bank",
            "E       *ClaimError: this is not a claim",
            "E       26  |     traces.expect(\"path shop -> \")",
            "E *ValueError: `soon` is not a duration",
        ]
    )  # fmt: skip
    ran.stdout.no_fnmatch_line("*claims.py:*")
    assert read_environment() == before


def read_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


@pytest.mark.parametrize(
    ("present", "endpoint", "protocol"),
    [
        ({}, HTTP, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4317"}, HTTP, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, GRPC, "grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, HTTP, "http/json"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, GRPC, "grpc"),
    ],
)
def test_endpoint_matches_requested_protocol(present: dict[str, str], endpoint: str, protocol: str) -> None:
    assert make_environment(present, HTTP, GRPC) == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


def test_configured_delay_is_kept() -> None:
    assert make_environment({"OTEL_BSP_SCHEDULE_DELAY": "50"}, HTTP, GRPC)["OTEL_BSP_SCHEDULE_DELAY"] == "50"


# ## In the process of the test

SHOP = """
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

def instrument(service, exporter):
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider

def check_out(shop, bank):
    with shop.get_tracer("t").start_as_current_span("checkout"):
        with shop.get_tracer("t").start_as_current_span("transfer", kind=trace.SpanKind.CLIENT):
            bank.get_tracer("t").start_span("transfer", kind=trace.SpanKind.SERVER).end()
"""
EARLY = """
import asyncio, pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from shop import check_out, instrument

# both exist before the collector and export elsewhere
trace.set_tracer_provider(instrument("shop", InMemorySpanExporter()))
BANK = instrument("bank", InMemorySpanExporter())

@pytest.fixture(scope="session", autouse=True)
def bank(spanproof):
    spanproof.receive_from(BANK)

def test_first(traces):
    check_out(trace.get_tracer_provider(), BANK)
    traces.expect("path shop -> bank", "count(bank) == 1", quiet="0s")

@pytest.mark.asyncio
async def test_task(traces):
    async def transfer():
        check_out(trace.get_tracer_provider(), BANK)
    await asyncio.gather(transfer(), transfer())
    traces.expect("count(shop) == 2", quiet="0s")

def test_nothing(traces):
    with pytest.raises(AssertionError, match="no span of this trace has arrived"):
        traces.expect("some shop", within="0s")
"""
LATE = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from shop import check_out, instrument

def test_late(traces):
    trace.set_tracer_provider(instrument("shop", OTLPSpanExporter()))
    check_out(trace.get_tracer_provider(), trace.get_tracer_provider())
    traces.expect('some span shop "checkout"', "count(shop) == 2", quiet="0s")
"""


@pytest.mark.parametrize(("module", "passed"), [(EARLY, 3), (LATE, 1)], ids=["early", "late"])
def test_in_process_code_continues_trace_of_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, module: str, passed: int
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p spanproof.assertions.pytest_plugin -p pytest_asyncio.plugin")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\npythonpath = .")
    pytester.makepyfile(module, shop=SHOP)
    pytester.runpytest_subprocess().assert_outcomes(passed=passed)  # a process has one global provider
