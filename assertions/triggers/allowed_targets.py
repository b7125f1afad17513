"""Allowed targets of requests that a server sends on behalf of its users."""

from __future__ import annotations

import ipaddress
import socket
from typing import TypeAlias

import httpx
from msgspec import Struct

from spanproof.assertions.triggers.context import TriggerFailed

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}


class AllowedTargets(Struct, frozen=True):
    """The allowed hosts and ports.

    A name may resolve to any address except loopback, link-local, unspecified and multicast addresses. Those are
    allowed only if the list contains the address itself.
    """

    allowed: frozenset[tuple[str, int]] = frozenset()

    def pin_address(self, request: httpx.Request) -> httpx.Request:
        """Return the request with a checked address as its host, so that no second DNS look-up can change it.

        Raises TriggerFailed if the target is not allowed.
        """
        host = request.url.host
        address = self.resolve(host, request.url.port or _PORTS[request.url.scheme])
        return httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,  # include the original `host`
            content=request.content,
            extensions={"sni_hostname": host},  # also the name that the certificate is checked against
        )

    def resolve(self, host: str, port: int) -> str:
        """Return a checked address of a target. Raises TriggerFailed if it is not allowed."""
        if (host, port) not in self.allowed:
            raise TriggerFailed(f"{host}:{port} is not a target that this server may call")
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise TriggerFailed(f"{host} cannot be resolved: {error.strerror or error}") from None
        addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in infos]
        for address in addresses:
            if _is_internal_address(address) and host != str(address):
                raise TriggerFailed(f"{host} resolves to {address}, which this server may not call")
        return str(addresses[0])


def read_allowed_targets(texts: list[str]) -> AllowedTargets:
    """Parse targets of the form `HOST:PORT` or `[ADDRESS]:PORT`. Raises ValueError."""
    allowed = set()
    for text in texts:
        try:
            url = httpx.URL(f"http://{text}")
        except httpx.InvalidURL:
            url = httpx.URL()
        port = text.rpartition(":")[2]
        if not url.host or url.raw_path != b"/" or url.userinfo or not port.isdecimal():
            raise ValueError(f"{text!r} is not a target; write HOST:PORT")
        allowed.add((url.host, int(port)))
    return AllowedTargets(frozenset(allowed))


def _is_internal_address(address: _Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        return _is_internal_address(mapped)
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
