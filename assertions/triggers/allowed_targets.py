"""Where requests may go that a server sends on behalf of others."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TypeAlias

import httpx

from spanproof.assertions.triggers.context import TriggerFailed

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class AllowedTargets:
    """The hosts, with their ports, that may be asked.

    A name may lead to any address but those of this machine, of its link, and of no machine at all: those are
    asked only where the list names the address itself.
    """

    allowed: frozenset[tuple[str, int]] = frozenset()

    def pin_address(self, request: httpx.Request) -> httpx.Request:
        """Return the request addressed to a checked address, so that no second look-up leads elsewhere.

        Raises TriggerFailed where the target is not allowed.
        """
        host = request.url.host
        address = self.resolve(host, request.url.port or _PORTS[request.url.scheme])
        return httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,  # `host` among them, as it was
            content=request.content,
            extensions={"sni_hostname": host},  # also the name that the certificate must have
        )

    def resolve(self, host: str, port: int) -> str:
        """Return a checked address of a target. Raises TriggerFailed where it is not allowed."""
        if (host, port) not in self.allowed:
            raise TriggerFailed(f"{host}:{port} is no target that this server may ask")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise TriggerFailed(f"{host} cannot be resolved: {error.strerror or error}") from None
        addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
        for address in addresses:
            if _is_internal_address(address) and host != str(address):
                raise TriggerFailed(f"{host} leads to {address}, which this server may not ask")
        return str(addresses[0])


def read_allowed_targets(texts: list[str]) -> AllowedTargets:
    """Read `HOST:PORT`, `[ADDRESS]:PORT`. Raises ValueError."""
    allowed = set()
    for text in texts:
        try:
            url = httpx.URL(f"http://{text}")
        except httpx.InvalidURL:
            url = httpx.URL()
        port = text.rpartition(":")[2]
        if not url.host or url.raw_path != b"/" or url.userinfo or not port.isdecimal():
            raise ValueError(f"{text!r} is no target; write HOST:PORT")
        allowed.add((url.host, int(port)))
    return AllowedTargets(frozenset(allowed))


def _is_internal_address(address: _Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        return _is_internal_address(mapped)
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
