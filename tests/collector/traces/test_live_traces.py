"""Live traces have the same derived rows as the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanproof.assertions.cases.case_file import parse_cases
from spanproof.assertions.cases.scenario import Scenario
from spanproof.assertions.cases.scenario_requests import CaseRequests
from spanproof.assertions.cases.variations import Variation
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.calls.service_rules import ServiceRules, store_rules
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.collector.traces import live_traces as live_traces_module
from spanproof.collector.traces.live_traces import LiveTraces

TABLES = (
    "spans", "traces", "topology", "attempts", "combined_calls", "hops", "separate_attempts", "separate_calls",
)  # fmt: skip
CASES = sorted((Path(__file__).parents[2] / "cases").glob("*.case"))
SPLIT = Variation("shuffled, split over requests, doubled", shuffled=True, split=True, duplicated=True)
LiveFactory = Callable[[int], LiveTraces]


@pytest.fixture
def expect(store: Store) -> Iterator[LiveFactory]:
    """Return a function that expects a number of traces, numbered from 1; the trigger span of each has the id 99."""
    opened: list[LiveTraces] = []

    def make_live_traces(traces: int) -> LiveTraces:
        opened.append(LiveTraces(store))
        opened[-1].expect_traces({f"{number:032x}": f"{99:016x}" for number in range(1, traces + 1)})
        store.subscribe(opened[-1].add_arrived)
        return opened[-1]

    yield make_live_traces
    for each in opened:
        each.close()


def request(*spans: tuple[int, int, int, str, int], link: int | None = None) -> ExportTraceServiceRequest:
    """Make a request of spans: trace, span and parent by number, service, kind."""
    export_request = ExportTraceServiceRequest()
    for trace, span, parent, service, kind in spans:
        resource_spans = export_request.resource_spans.add()
        resource_spans.resource.attributes.add(key="service.name").value.string_value = service
        resource_spans.scope_spans.add().spans.add(
            trace_id=trace.to_bytes(16, "big"),
            span_id=span.to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            name="work",
            kind=kind,  # type: ignore[arg-type]  # enum values as integers
            start_time_unix_nano=1_000 + span,
            end_time_unix_nano=2_000 - span,
            links=[] if link is None else [Span.Link(trace_id=link.to_bytes(16, "big"), span_id=b"\0" * 7 + b"\1")],
        )
    return export_request


def send(store: Store, *requests: ExportTraceServiceRequest) -> None:
    store.append(Decoder().decode([each.SerializeToString() for each in requests]))


def columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    """Return the names and types of a table's columns, in the order of the names."""
    return sorted((name, type_) for name, type_, *_ in connection.execute(f"DESCRIBE {table}").fetchall())


def assert_same(live_traces: LiveTraces, store: Store) -> None:
    with store.cursor() as connection:
        for table in TABLES:
            names = store.read_empty_table(table).column_names  # the same order in both
            sql = f"""SELECT "{'", "'.join(names)}" FROM {table} ORDER BY ALL"""  # noqa: S608 (fixed names)
            assert live_traces.connection.execute(sql).fetchall() == connection.execute(sql).fetchall(), table


def list_scenarios() -> list[object]:
    return [
        pytest.param(scenario, id=f"{file.stem}:{number}")
        for file in CASES
        for number, scenario in enumerate(parse_cases(file.read_text(encoding="utf-8")))
        if scenario.assertions
    ]


@pytest.mark.parametrize("scenario", list_scenarios())
def test_live_rows_equal_stored_rows_in_every_case(scenario: Scenario) -> None:
    traces = scenario.assertions[-1][0]
    requests = list(CaseRequests(traces, SPLIT).build_requests(traces))
    spans = [
        span
        for each in requests
        for resource_spans in each.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]
    with Store.open(settings={"threads": "1"}) as store:
        store_rules(store, scenario.rules)
        live_traces = LiveTraces(store)
        live_traces.expect_traces({span.trace_id.hex(): f"{1:016x}" for span in spans})
        store.subscribe(live_traces.add_arrived)
        for first in range(3):
            send(store, *requests[first::3])
            live_traces.publish()
        derive_calls(store)
        linked = store.cursor().execute("FROM entry_links").fetchall()
        assert live_traces.publish() is not bool(linked)
        if not linked:
            assert_same(live_traces, store)
        live_traces.close()


def test_live_tables_have_store_columns(store: Store, expect: LiveFactory) -> None:
    live_traces = expect(1)
    for _ in range(2):
        for table in TABLES:
            assert columns(live_traces.connection, table) == columns(store.cursor(), table)
        send(store, request((1, 1, 99, "shop", 2), (1, 2, 1, "shop", 3), (1, 3, 2, "bank", 2)))
        assert live_traces.publish()


def test_trigger_span_is_not_a_missing_parent(store: Store, expect: LiveFactory) -> None:
    live_traces = expect(2)
    with store.cursor() as connection:
        traces = [f"{number:032x}" for number in (1, 2)]
        connection.execute("DELETE FROM triggers")
        connection.execute("INSERT INTO triggers SELECT unnest($traces)::UUID, 99", {"traces": traces})
    send(store, request((1, 1, 99, "shop", 2), (2, 1, 98, "shop", 2)))
    assert live_traces.publish()
    assert live_traces.connection.execute("SELECT orphan FROM topology ORDER BY trace_id").fetchall() == [
        (False,),
        (True,),
    ]
    derive_calls(store)
    assert_same(live_traces, store)


def test_unexpected_spans_are_not_published(store: Store, expect: LiveFactory) -> None:
    send(store, request((1, 1, 99, "before", 2)))
    live_traces = expect(2)
    assert live_traces.publish()
    assert live_traces.connection.execute("SELECT count(*) FROM spans").fetchall() == [(0,)]
    send(store, request((1, 2, 1, "shop", 3), (3, 1, 0, "others", 2)), request((2, 1, 99, "bank", 2)))
    assert live_traces.publish()
    assert live_traces.connection.execute("SELECT service FROM topology ORDER BY ALL").fetchall() == [
        ("bank",),
        ("shop",),
    ]
    send(store, request((1, 3, 2, "bank", 2)))
    assert live_traces.connection.execute("SELECT count(*) FROM attempts WHERE server_key IS NOT NULL").fetchall() == [
        (0,)
    ]
    assert live_traces.publish()
    assert live_traces.connection.execute("SELECT caller, callee FROM calls").fetchall() == [("shop", "bank")]


def test_live_derivation_uses_store_rules(store: Store, expect: LiveFactory) -> None:
    store_rules(store, ServiceRules(proxies=("sidecar",)))
    live_traces = expect(1)
    send(
        store,
        request((1, 1, 99, "shop", 2), (1, 2, 1, "shop", 3)),
        request((1, 3, 2, "sidecar", 2), (1, 4, 3, "sidecar", 3)),
        request((1, 5, 4, "bank", 2)),
    )
    assert live_traces.publish()
    assert live_traces.connection.execute("SELECT caller, callee FROM calls").fetchall() == [("shop", "bank")]


def test_links_require_the_store(store: Store, expect: LiveFactory) -> None:
    live_traces = expect(1)
    send(store, request((1, 1, 99, "shop", 2)))
    assert live_traces.publish()
    send(store, request((1, 2, 0, "mail", 5), link=2))
    assert not live_traces.publish()
    assert not live_traces.is_complete


def test_too_many_spans_require_the_store(store: Store, expect: LiveFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_traces_module, "_MAX_SPANS", 2)
    live_traces = expect(1)
    send(store, request((1, 1, 99, "shop", 2), (1, 2, 1, "shop", 3)))
    assert live_traces.publish()
    send(store, request((1, 3, 2, "bank", 2)))
    assert not live_traces.publish()
