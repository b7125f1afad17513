"""Where requests may go that a server sends for others."""

from __future__ import annotations

import socket

import httpx
import pytest

from spanproof.assertions.triggers.allowed_targets import AllowedTargets, read_allowed_targets
from spanproof.assertions.triggers.context import TriggerFailed


def lead(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    """Let names lead to addresses, as a name server might answer."""

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = addresses.get(host.replace(".", "_"), host)
        return [(None, None, None, "", (address, port)) for address in found.split()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def pin(targets: AllowedTargets, url: str) -> httpx.Request:
    return targets.pin_address(httpx.Request("POST", url, content=b"{}", headers={"x-token": "1"}))


def test_a_request_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    lead(monkeypatch, shop_example="10.0.0.7")
    pinned = pin(read_allowed_targets(["shop.example:8443"]), "https://shop.example:8443/pay?x=1")
    assert str(pinned.url) == "https://10.0.0.7:8443/pay?x=1"
    assert (pinned.headers["host"], pinned.headers["x-token"]) == ("shop.example:8443", "1")
    assert pinned.extensions["sni_hostname"] == "shop.example"
    assert pinned.read() == b"{}"


@pytest.mark.parametrize(
    "url", ["http://shop.example/", "http://shop.example:81/", "http://10.0.0.7:80/", "http://x:80/"]
)
def test_what_is_not_listed_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    lead(monkeypatch, shop_example="10.0.0.7")
    with pytest.raises(TriggerFailed, match="is no target that this server may ask"):
        pin(read_allowed_targets(["shop.example:8080", "other.example:80"]), url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104 (asked, not listened on)
        "::1",
        "fe80::1",
        "224.0.0.1",
        "::ffff:127.0.0.1",
        "10.0.0.7 127.0.0.1",
    ],
)
def test_a_name_must_not_lead_to_this_machine_or_its_link(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    lead(monkeypatch, shop_example=address)
    with pytest.raises(TriggerFailed, match=r"shop\.example leads to \S+, which this server may not ask"):
        pin(read_allowed_targets(["shop.example:80"]), "http://shop.example/")


def test_an_address_that_is_listed_itself_may_be_this_machine() -> None:
    targets = read_allowed_targets(["127.0.0.1:8080", "[::1]:8080"])
    assert str(pin(targets, "http://127.0.0.1:8080/").url) == "http://127.0.0.1:8080/"
    assert str(pin(targets, "http://[::1]:8080/").url) == "http://[::1]:8080/"


def test_a_name_that_leads_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(TriggerFailed, match=r"shop\.example cannot be resolved: Name or service not known"):
        pin(read_allowed_targets(["shop.example:80"]), "http://shop.example/")


@pytest.mark.parametrize(
    "text", ["shop.example", "http://shop.example:80", "shop.example:80/x", ":80", "a:b", "u@shop:80"]
)
def test_what_names_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT"):
        read_allowed_targets([text])
