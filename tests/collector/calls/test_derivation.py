"""However spans are cut into steps of derivation, what is derived is the same."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanproof.collector.calls import derivation as calls
from spanproof.collector.calls.derivation import DERIVED_TABLES, derive_calls
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
MS = 1_000_000


def send(
    trace: int, span: int, parent: int, service: str, kind: int, *links: int, at: int = 0, bad: bool = False
) -> bytes:
    """Make a request of one span; each of `links` is the number of a trace, and means its span 2."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = service
    made = of_resource.scope_spans.add().spans.add(
        trace_id=trace.to_bytes(16, "big"),
        span_id=(trace * 100 + span).to_bytes(8, "big"),
        parent_span_id=(trace * 100 + parent).to_bytes(8, "big") if parent else b"",
        name="work",
        kind=kind,
        start_time_unix_nano=(1000 + at) * MS,
        end_time_unix_nano=(1010 + at) * MS,
        links=[
            Span.Link(trace_id=link.to_bytes(16, "big"), span_id=(link * 100 + 2).to_bytes(8, "big")) for link in links
        ],
    )
    made.status.code = 2 if bad else 0
    return request.SerializeToString()


# Two traces send messages, which three others take up, one of them both; and a service goes on in traces of its own.
SENT = (
    *(send(trace, 1, 0, "orders", SERVER) for trace in (1, 2)),
    *(send(trace, 2, 1, "orders", PRODUCER, at=1) for trace in (1, 2)),
    send(3, 1, 0, "billing", CONSUMER, 1, at=20),
    send(4, 1, 0, "mails", CONSUMER, 1, at=25),
    send(5, 1, 0, "batches", CONSUMER, 1, 2, at=30),
    send(6, 1, 0, "orders", SERVER, 1, 2, at=40),
    send(1, 3, 1, "orders", CLIENT, at=2, bad=True),
    send(1, 4, 1, "orders", CLIENT, at=15),
    send(2, 3, 1, "orders", CLIENT, at=2),
)


def tables(store: Store) -> dict[str, list[tuple[object, ...]]]:
    with store.cursor() as connection:
        return {table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in DERIVED_TABLES}


def derive_all(order: tuple[bytes, ...], *, each: bool) -> dict[str, list[tuple[object, ...]]]:
    """Derive after each span, or after the last; the spans have the same keys either way."""
    decoder = Decoder()
    with Store.open() as store:
        for body in order:
            store.append(decoder.decode([body]))
            if each:
                derive_calls(store)
        derive_calls(store)
        return tables(store)


@pytest.mark.parametrize("order", [SENT[::-1], SENT[::2] + SENT[1::2]], ids=["reversed", "mixed"])
def test_steps_make_no_difference(order: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = derive_all(order, each=False)
    assert {table: len(rows) for table, rows in whole.items()} == {
        "traces": 6, "topology": 11, "attempts": 7, "calls": 6, "entry_links": 6, "continuations": 2,
    }  # fmt: skip
    assert derive_all(order, each=True) == whole
    monkeypatch.setattr(calls, "_BATCH_SPANS", 3)
    assert derive_all(order, each=False) == whole


def test_everything_is_derived_again_where_the_rules_demand_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BATCH_SPANS", 5)
    with Store.open() as store:
        store.append(Decoder().decode(list(SENT)))
        derive_calls(store)
        before = tables(store)
        with store.cursor() as connection:
            connection.execute("UPDATE derivation SET last_span_key = -1")
        assert derive_calls(store) >= 6
        assert tables(store) == before


def test_where_there_is_no_span_nothing_is_derived() -> None:
    with Store.open() as store:
        assert derive_calls(store) == 0
        store.append(Decoder().decode([SENT[0]]))
        store.cursor().execute("DELETE FROM spans").close()  # as what was forgotten leaves keys that no span has
        assert derive_calls(store) == 0
        store.append(Decoder().decode([SENT[0]]))
        assert derive_calls(store) == 1
