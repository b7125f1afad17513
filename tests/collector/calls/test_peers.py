"""Names of callees that sent no span, as the store learns what answers at an address."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import StoredSpan, make_request

Send = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def send() -> Iterator[Send]:
    """Return a function that stores spans, derives the calls, and returns caller and callee of unanswered ones."""
    decoder = Decoder()
    with Store.open() as store:

        def send(*spans: StoredSpan) -> list[tuple[str, str]]:
            store.append(decoder.decode([make_request(*spans).SerializeToString()]))
            derive_calls(store)
            with store.cursor() as connection:
                sql = "SELECT caller, callee FROM attempts WHERE callee_entry IS NULL ORDER BY client_key"
                return connection.execute(sql).fetchall()

        yield send


def call(trace: int, caller: str, address: str, callee: str | None = None) -> tuple[StoredSpan, ...]:
    """Return the spans of a call to an address, with a server span if there is a `callee`."""
    client = StoredSpan(
        caller, "GET", trace, 2, 1, "client", error=callee is None,
        attributes={"url.full": f"http://{address}/x", "http.request.method": "GET"},
    )  # fmt: skip
    server = [] if callee is None else [StoredSpan(callee, "GET /x", trace, 3, 2)]
    return (StoredSpan(caller, "GET /", trace, 1), client, *server)


def test_later_answer_names_earlier_callee(send: Send) -> None:
    assert send(*call(1, "orders", "10.0.0.7:80")) == [("orders", "10.0.0.7")]
    assert send(*call(2, "orders", "10.0.0.7:80", "payments")) == [("orders", "payments")]
    assert send(*call(3, "shop", "10.0.0.7:80")) == [("orders", "payments"), ("shop", "payments")]


def test_shared_address_names_nobody(send: Send) -> None:
    send(*call(1, "orders", "gateway:80", "payments"))
    assert send(*call(2, "orders", "gateway:80")) == [("orders", "payments")]
    assert send(*call(3, "orders", "gateway:80", "stock")) == [("orders", "gateway")]


def test_loopback_address_is_one_per_caller(send: Send) -> None:
    send(*call(1, "orders", "localhost:8083", "payments"))
    assert send(*call(2, "shop", "localhost:8083")) == [("shop", "localhost")]
    assert send(*call(3, "orders", "localhost:8083")) == [("shop", "localhost"), ("orders", "payments")]
