"""Arrivals that wake a proof, and services that a claim requires."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spanproof.assertions.run.arrival_notifications import ArrivalListener, find_required_services
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.constants import Bindings, Constant
from spanproof.query_lang.syntax.parser import parse_claim

Add = Callable[..., None]


@pytest.mark.parametrize(
    ("claim", "required"),
    [
        ("path shop -> bank", [{"shop"}, {"bank"}]),
        ("path shop ->> (bank | post) ~> to", [{"shop"}, {"bank", "post"}, {"mail"}]),
        ("path shop -> { bank, to -> * }", [{"shop"}, {"bank"}, {"mail"}]),
        ("no path shop -> bank", []),
        ("only path shop -> bank", []),
        ("path shop -> bank in >= 90% of traces", []),
        ("some shop", [{"shop"}]),
        ("some shop -> to[attempts == 2]", [{"shop"}]),
        ("some *", []),
        ("some shop in >= 90% of traces", []),
        ("no shop", []),
        ("count(shop) == 1", []),
    ],
)
def test_claim_requires_services(claim: str, required: list[set[str]]) -> None:
    parsed = parse_claim(claim)
    assert parsed.expectation is not None, parsed.diagnostics
    services = find_required_services(parsed.expectation, Bindings({"to": Constant("mail", "text")}))
    assert [set(each) for each in services] == required


def test_own_and_unowned_traces_wake_listener(store: Store, add: Add) -> None:
    other = object()
    with ArrivalListener(store, {f"{1:032x}": other}, "this") as listener:
        add("shop", 1, trace=1)
        assert not listener.wait(0)
        add("shop", 1, trace=2)
        assert listener.wait(0)
        listener.acknowledge()
        assert not listener.wait(0)
    add("shop", 1, trace=3)
    assert not listener.wait(0)


def test_known_service_without_spans_is_missing(store: Store, add: Add) -> None:
    shop, bank = frozenset({"shop"}), frozenset({"bank"})
    add("bank", 9, trace=9)
    with ArrivalListener(store, {}, "this") as listener:
        assert listener.is_service_missing((shop, bank))
        assert not listener.is_service_missing((shop,)), "the shop may never send spans"
        assert not listener.is_service_missing((bank | {"post"},)), "the other service may have sent spans"
        add("shop", 1)
        assert listener.is_service_missing((shop, bank))
        add("bank", 2, 1)
        assert not listener.is_service_missing((shop, bank))
        assert not listener.is_service_missing(())
