from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from spanproof.assertions.run.events import RunEvent
from spanproof.assertions.run.proof_run import RunSettings
from spanproof.assertions.run.runner import Runner
from spanproof.assertions.triggers.allowed_targets import AllowedTargets
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.collector.storage.store import Store
from spanproof.query_lang.load.modules import load_module
from spanproof.tests.assertions.traced_service import ProofResult, Prove, StoreExporter, TracedService

ZERO_NS = 1_700_000_000_000_000_000
Add = Callable[..., None]


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int) -> str:
    return f"{number:016x}"


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open() as store:
        yield store


@pytest.fixture
def connection(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with store.cursor() as connection:
        yield connection


@pytest.fixture
def add(store: Store) -> Add:
    """Return a function that stores one span and derives calls. Ids are numbers, times milliseconds."""
    decoder = Decoder()

    def add(
        service: str,
        id_: int,
        parent: int = 0,
        kind: str = "server",
        *,
        trace: int = 1,
        ms: tuple[int, int] = (0, 10),
        error: bool = False,
        link: tuple[int, int] | None = None,
        **attributes: str | int,
    ) -> None:
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        start, end = (ZERO_NS + time * 1_000_000 for time in ms)
        span = resource.scope_spans.add().spans.add(
            trace_id=bytes.fromhex(trace_id(trace)),
            span_id=bytes.fromhex(span_id(id_)),
            parent_span_id=bytes.fromhex(span_id(parent)) if parent else b"",
            name=f"{service} {kind}",
            kind=SPAN_KINDS[kind],
            start_time_unix_nano=start,
            end_time_unix_nano=end,
        )
        span.status.code = 2 if error else 0
        for name, value in attributes.items():
            attribute_value = span.attributes.add(key=name.replace("__", ".")).value
            if isinstance(value, int):
                attribute_value.int_value = value
            else:
                attribute_value.string_value = value
        if link is not None:
            span.links.add(trace_id=bytes.fromhex(trace_id(link[0])), span_id=bytes.fromhex(span_id(link[1])))
        store.append(decoder.decode([request.SerializeToString()]))
        derive_calls(store)

    return add


@pytest.fixture
def trace(store: Store) -> Iterator[Callable[[str], TracedService]]:
    """Return a function that creates a service which sends spans."""
    providers = []

    def trace(name: str) -> TracedService:
        provider = TracerProvider(resource=Resource({"service.name": name}), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(StoreExporter(store)))
        providers.append(provider)
        return TracedService(name, provider)

    yield trace
    for provider in providers:
        provider.shutdown()


@pytest.fixture
def prove(store: Store, tmp_path: Path) -> Prove:
    """Return a function that runs the statements of a proof."""

    def prove(statements: str, *, targets: AllowedTargets | None = None, within: str = "5s") -> ProofResult:
        path = tmp_path / "it.proof"
        text = f'proof "it" {{\nsettle within {within} quiet 20ms\n{statements}\n}}\n'
        path.write_text(text, encoding="utf-8")
        module = load_module(path)
        assert module.diagnostics == ()
        events: list[RunEvent] = []
        run_settings = RunSettings(run_id="r1", allowed_targets=targets)
        Runner(store, events.append, run_settings).run([(module, proof) for proof in module.proofs])
        return ProofResult(events)

    return prove
