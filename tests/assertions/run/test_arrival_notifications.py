"""Which arrivals wake a proof, and which of them may decide a claim."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spanproof.assertions.run.arrival_notifications import ArrivalListener, find_required_services
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.constants import Bindings, Constant
from spanproof.query_lang.syntax.parser import parse_claim

Add = Callable[..., None]


@pytest.mark.parametrize(
    ("claim", "needs"),
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
def test_what_a_claim_needs(claim: str, needs: list[set[str]]) -> None:
    parsed = parse_claim(claim)
    assert parsed.expectation is not None, parsed.diagnostics
    found = find_required_services(parsed.expectation, Bindings({"to": Constant("mail", "text")}))
    assert [set(each) for each in found] == needs


def test_it_is_woken_by_its_own_traces_and_by_those_that_nobody_began(store: Store, add: Add) -> None:
    other = object()
    with ArrivalListener(store, {f"{1:032x}": other}, "this") as arrivals:
        add("shop", 1, trace=1)
        assert not arrivals.wait(0)
        add("shop", 1, trace=2)
        assert arrivals.wait(0)
        arrivals.acknowledge()
        assert not arrivals.wait(0)
    add("shop", 1, trace=3)
    assert not arrivals.wait(0)


def test_a_service_is_lacking_that_is_known_to_send_spans_and_has_not(store: Store, add: Add) -> None:
    shop, bank = frozenset({"shop"}), frozenset({"bank"})
    add("bank", 9, trace=9)
    with ArrivalListener(store, {}, "this") as arrivals:
        assert arrivals.is_service_missing((shop, bank))
        assert not arrivals.is_service_missing((shop,)), "perhaps it never sends any"
        assert not arrivals.is_service_missing((bank | {"post"},)), "the other one may be there"
        add("shop", 1)
        assert arrivals.is_service_missing((shop, bank))
        add("bank", 2, 1)
        assert not arrivals.is_service_missing((shop, bank))
        assert not arrivals.is_service_missing(())
