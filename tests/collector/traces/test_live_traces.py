"""What is derived in memory of spans as they arrive is what the store derives of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanproof.assertions.cases.case_file import Scenario, parse_cases
from spanproof.assertions.cases.case_runner import CaseRequests, Variation
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.calls.service_rules import ServiceRules, store_rules
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.collector.traces import live_traces as live
from spanproof.collector.traces.live_traces import LiveTraces

TABLES = ("spans", "traces", "topology", "attempts", "calls", "hops")
CASES = sorted((Path(__file__).parents[2] / "cases").glob("*.case"))
SPLIT = Variation("shuffled, split over requests, doubled", shuffled=True, split=True, duplicated=True)
Live = Callable[[int], LiveTraces]


@pytest.fixture
def expect(store: Store) -> Iterator[Live]:
    """Expects spans of so many traces, numbered from 1; our own span in each has the id 99."""
    opened: list[LiveTraces] = []

    def expect(traces: int) -> LiveTraces:
        opened.append(LiveTraces(store))
        opened[-1].expect_traces({f"{number:032x}": f"{99:016x}" for number in range(1, traces + 1)})
        store.subscribe(opened[-1].add_arrived)
        return opened[-1]

    yield expect
    for each in opened:
        each.close()


def request(*spans: tuple[int, int, int, str, int], link: int | None = None) -> ExportTraceServiceRequest:
    """Make a request of spans: trace, span and parent by number, service, kind."""
    made = ExportTraceServiceRequest()
    for trace, span, parent, service, kind in spans:
        of_resource = made.resource_spans.add()
        of_resource.resource.attributes.add(key="service.name").value.string_value = service
        of_resource.scope_spans.add().spans.add(
            trace_id=trace.to_bytes(16, "big"),
            span_id=span.to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            name="work",
            kind=kind,  # type: ignore[arg-type]  # the enum's own numbers
            start_time_unix_nano=1_000 + span,
            end_time_unix_nano=2_000 - span,
            links=[] if link is None else [Span.Link(trace_id=link.to_bytes(16, "big"), span_id=b"\0" * 7 + b"\1")],
        )
    return made


def send(store: Store, *requests: ExportTraceServiceRequest) -> None:
    store.append(Decoder().decode([each.SerializeToString() for each in requests]))


def columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    """Return the names and types of a table's columns, in the order of the names."""
    return sorted((name, type_) for name, type_, *_ in connection.execute(f"DESCRIBE {table}").fetchall())


def assert_same(shown: LiveTraces, store: Store) -> None:
    with store.cursor() as connection:
        for table in TABLES:
            names = store.read_empty_table(table).column_names  # in one order
            sql = f"""SELECT "{'", "'.join(names)}" FROM {table} ORDER BY ALL"""  # noqa: S608 (fixed names)
            assert shown.connection.execute(sql).fetchall() == connection.execute(sql).fetchall(), table


def scenes() -> list[object]:
    return [
        pytest.param(scene, id=f"{file.stem}:{number}")
        for file in CASES
        for number, scene in enumerate(parse_cases(file.read_text(encoding="utf-8")))
        if scene.assertions
    ]


@pytest.mark.parametrize("scene", scenes())
def test_every_case_as_it_arrives(scene: Scenario) -> None:
    traces = scene.assertions[-1][0]
    requests = list(CaseRequests(traces, SPLIT).build_requests(traces))
    spans = [span for each in requests for of in each.resource_spans for in_ in of.scope_spans for span in in_.spans]
    with Store.open(settings={"threads": "1"}) as store:
        store_rules(store, scene.rules)
        shown = LiveTraces(store)
        shown.expect_traces({span.trace_id.hex(): f"{1:016x}" for span in spans})
        store.subscribe(shown.add_arrived)
        for first in range(3):
            send(store, *requests[first::3])
            shown.publish()
        derive_calls(store)
        linked = store.cursor().execute("FROM entry_links").fetchall()
        assert shown.publish() is not bool(linked)
        if not linked:
            assert_same(shown, store)
        shown.close()


def test_the_columns_are_those_of_the_store(store: Store, expect: Live) -> None:
    shown = expect(1)
    for _ in range(2):
        for table in TABLES:
            assert columns(shown.connection, table) == columns(store.cursor(), table)
        send(store, request((1, 1, 99, "shop", 2), (1, 2, 1, "shop", 3), (1, 3, 2, "bank", 2)))
        assert shown.publish()


def test_the_span_that_nobody_exports_is_no_parent_that_is_missing(store: Store, expect: Live) -> None:
    shown = expect(2)
    with store.cursor() as connection:
        traces = [f"{number:032x}" for number in (1, 2)]
        connection.execute("DELETE FROM triggers")
        connection.execute("INSERT INTO triggers SELECT unnest($traces)::UUID, 99", {"traces": traces})
    send(store, request((1, 1, 99, "shop", 2), (2, 1, 98, "shop", 2)))
    assert shown.publish()
    assert shown.connection.execute("SELECT orphan FROM topology ORDER BY trace_id").fetchall() == [(False,), (True,)]
    derive_calls(store)
    assert_same(shown, store)


def test_nothing_else_is_shown(store: Store, expect: Live) -> None:
    send(store, request((1, 1, 99, "before", 2)))
    shown = expect(2)
    assert shown.publish()
    assert shown.connection.execute("SELECT count(*) FROM spans").fetchall() == [(0,)]
    send(store, request((1, 2, 1, "shop", 3), (3, 1, 0, "others", 2)), request((2, 1, 99, "bank", 2)))
    assert shown.publish()
    assert shown.connection.execute("SELECT service FROM topology ORDER BY ALL").fetchall() == [("bank",), ("shop",)]
    send(store, request((1, 3, 2, "bank", 2)))
    assert shown.connection.execute("SELECT count(*) FROM attempts WHERE server_key IS NOT NULL").fetchall() == [(0,)]
    assert shown.publish()
    assert shown.connection.execute("SELECT caller, callee FROM calls").fetchall() == [("shop", "bank")]


def test_it_goes_by_the_rules_and_services_of_the_store(store: Store, expect: Live) -> None:
    store_rules(store, ServiceRules(proxies=("sidecar",)))
    shown = expect(1)
    send(
        store,
        request((1, 1, 99, "shop", 2), (1, 2, 1, "shop", 3)),
        request((1, 3, 2, "sidecar", 2), (1, 4, 3, "sidecar", 3)),
        request((1, 5, 4, "bank", 2)),
    )
    assert shown.publish()
    assert shown.connection.execute("SELECT caller, callee FROM calls").fetchall() == [("shop", "bank")]


def test_what_came_by_links_takes_the_store(store: Store, expect: Live) -> None:
    shown = expect(1)
    send(store, request((1, 1, 99, "shop", 2)))
    assert shown.publish()
    send(store, request((1, 2, 0, "mail", 5), link=2))
    assert not shown.publish()
    assert not shown.is_complete


def test_what_is_much_takes_the_store(store: Store, expect: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MAX_SPANS", 2)
    shown = expect(1)
    send(store, request((1, 1, 99, "shop", 2), (1, 2, 1, "shop", 3)))
    assert shown.publish()
    send(store, request((1, 3, 2, "bank", 2)))
    assert not shown.publish()
