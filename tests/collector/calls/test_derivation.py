"""The batches of derivation do not change the derived rows."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanproof.collector.calls import derivation
from spanproof.collector.calls.derivation import DERIVED_TABLES, derive_calls
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
MS = 1_000_000


def send(
    trace: int,
    span: int,
    parent: int,
    service: str,
    kind: int,
    *links: int,
    at: int = 0,
    failed: bool = False,
    message: str | None = None,
) -> bytes:
    """Return a request of one span; each of `links` is the number of a trace and links to its span 2."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    span_message = resource_spans.scope_spans.add().spans.add(
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
    span_message.status.code = 2 if failed else 0
    if message is not None:
        span_message.attributes.add(key="messaging.message.id").value.string_value = message
    return request.SerializeToString()


# Two traces send messages, which three others consume, one of them both; and a service continues in a new trace. Two of
# the messages have an id, and are delivered again in traces without links.
REQUESTS = (
    *(send(trace, 1, 0, "orders", SERVER) for trace in (1, 2)),
    *(send(trace, 2, 1, "orders", PRODUCER, at=1) for trace in (1, 2)),
    send(3, 1, 0, "billing", CONSUMER, 1, at=20, message="m1"),
    send(4, 1, 0, "mails", CONSUMER, 1, at=25, message="m1"),
    send(5, 1, 0, "batches", CONSUMER, 1, 2, at=30),
    send(6, 1, 0, "orders", SERVER, 1, 2, at=40),
    send(1, 3, 1, "orders", CLIENT, at=2, failed=True),
    send(1, 4, 1, "orders", CLIENT, at=15),
    send(2, 3, 1, "orders", CLIENT, at=2),
    send(7, 1, 0, "billing", CONSUMER, at=50, message="m1"),
    send(8, 1, 0, "billing", CONSUMER, at=70, message="m1"),
    send(9, 1, 0, "billing", CONSUMER, at=70, message="m2"),
)


def tables(store: Store) -> dict[str, list[tuple[object, ...]]]:
    with store.cursor() as connection:
        return {table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in DERIVED_TABLES}


def derive_all(order: tuple[bytes, ...], *, after_each_span: bool) -> dict[str, list[tuple[object, ...]]]:
    """Derive after each span, or once at the end; the span keys are the same either way."""
    decoder = Decoder()
    with Store.open() as store:
        for body in order:
            store.append(decoder.decode([body]))
            if after_each_span:
                derive_calls(store)
        derive_calls(store)
        return tables(store)


@pytest.mark.parametrize("order", [REQUESTS[::-1], REQUESTS[::2] + REQUESTS[1::2]], ids=["reversed", "mixed"])
def test_batches_do_not_change_derived_rows(order: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = derive_all(order, after_each_span=False)
    assert {table: len(rows) for table, rows in expected.items()} == {
        "traces": 9, "topology": 14, "attempts": 9, "combined_calls": 2, "separate_attempts": 2, "separate_calls": 2,
        "deliveries": 5, "entry_links": 6, "continuations": 2,
    }  # fmt: skip
    assert derive_all(order, after_each_span=True) == expected
    monkeypatch.setattr(derivation, "_BATCH_SPANS", 3)
    assert derive_all(order, after_each_span=False) == expected


def test_reset_derivation_derives_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivation, "_BATCH_SPANS", 5)
    with Store.open() as store:
        store.append(Decoder().decode(list(REQUESTS)))
        derive_calls(store)
        before = tables(store)
        with store.cursor() as connection:
            connection.execute("UPDATE derivation SET last_span_key = -1")
        assert derive_calls(store) >= 6
        assert tables(store) == before


def test_store_without_spans_derives_nothing() -> None:
    with Store.open() as store:
        assert derive_calls(store) == 0
        store.append(Decoder().decode([REQUESTS[0]]))
        store.cursor().execute("DELETE FROM spans").close()  # as retention does, which leaves keys without a span
        assert derive_calls(store) == 0
        store.append(Decoder().decode([REQUESTS[0]]))
        assert derive_calls(store) == 1
