"""Allowed targets of requests that a server sends on behalf of its users."""

from __future__ import annotations

import socket

import httpx
import pytest

from spanproof.assertions.triggers.allowed_targets import AllowedTargets, read_allowed_targets
from spanproof.assertions.triggers.context import TriggerFailed


def resolve_names(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    """Make names resolve to these addresses."""

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        resolved = addresses.get(host.replace(".", "_"), host)
        return [(None, None, None, "", (address, port)) for address in resolved.split()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def pin(targets: AllowedTargets, url: str) -> httpx.Request:
    return targets.pin_address(httpx.Request("POST", url, content=b"{}", headers={"x-token": "1"}))


def test_request_uses_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_names(monkeypatch, shop_example="10.0.0.7")
    pinned = pin(read_allowed_targets(["shop.example:8443"]), "https://shop.example:8443/pay?x=1")
    assert str(pinned.url) == "https://10.0.0.7:8443/pay?x=1"
    assert (pinned.headers["host"], pinned.headers["x-token"]) == ("shop.example:8443", "1")
    assert pinned.extensions["sni_hostname"] == "shop.example"
    assert pinned.read() == b"{}"


@pytest.mark.parametrize(
    "url", ["http://shop.example/", "http://shop.example:81/", "http://10.0.0.7:80/", "http://x:80/"]
)
def test_unlisted_target_is_rejected(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    resolve_names(monkeypatch, shop_example="10.0.0.7")
    with pytest.raises(TriggerFailed, match="is not a target that this server may call"):
        pin(read_allowed_targets(["shop.example:8080", "other.example:80"]), url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104 (a target, not a listening address)
        "::1",
        "fe80::1",
        "224.0.0.1",
        "::ffff:127.0.0.1",
        "10.0.0.7 127.0.0.1",
    ],
)
def test_internal_address_is_rejected(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolve_names(monkeypatch, shop_example=address)
    with pytest.raises(TriggerFailed, match=r"shop\.example resolves to \S+, which this server may not call"):
        pin(read_allowed_targets(["shop.example:80"]), "http://shop.example/")


def test_listed_internal_address_is_allowed() -> None:
    targets = read_allowed_targets(["127.0.0.1:8080", "[::1]:8080"])
    assert str(pin(targets, "http://127.0.0.1:8080/").url) == "http://127.0.0.1:8080/"
    assert str(pin(targets, "http://[::1]:8080/").url) == "http://[::1]:8080/"


def test_unresolvable_name_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(TriggerFailed, match=r"shop\.example cannot be resolved: Name or service not known"):
        pin(read_allowed_targets(["shop.example:80"]), "http://shop.example/")


@pytest.mark.parametrize(
    "text", ["shop.example", "http://shop.example:80", "shop.example:80/x", ":80", "a:b", "u@shop:80"]
)
def test_invalid_target_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT"):
        read_allowed_targets([text])
