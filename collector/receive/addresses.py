"""Addresses to listen on, as `host:port`."""

from __future__ import annotations

import errno
import ipaddress
import socket
from urllib.parse import urlsplit

from spanproof.collector.user_errors import UserError


class AddressUnavailable(UserError):
    """The address cannot be listened on; the message says which and what to do."""


def split_address(address: str) -> tuple[str, int]:
    """Read `host:port`; an IPv6 host stands in brackets."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.netloc != address:
        raise ValueError(f"{address!r} is no address; write host:port, such as 127.0.0.1:4317")
    return host, port


def replace_port(address: str, port: int) -> str:
    """Return `address` with the port that was really taken."""
    return f"{address.rpartition(':')[0]}:{port}"


def open_listener(address: str) -> socket.socket:
    """Listen on `host:port`. Raises AddressInUse, and ValueError for what is no address."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise _make_listen_error(address, error) from error
    # with the protocol named, which create_server does not: asyncio sends small answers at once only then
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _make_listen_error(address, error) from error
    return listener


def is_loopback(address: str) -> bool:
    """Tell whether `host:port` is reached from this machine alone."""
    host, _ = split_address(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_endpoint_of_listener(address: str, host: str, port: int) -> bool:
    """Tell whether who connects to this host and port, on this machine, comes to what listens at `address`."""
    own_host, own_port = split_address(address)
    if port != own_port:
        return False
    own, named = _resolve(own_host), _resolve(host)
    if any(each.is_unspecified for each in own):
        return any(_is_local_address(each) for each in named)
    return bool(own & named)


def _resolve(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # nobody is there, not now
        return set()
    return {ipaddress.ip_address(place[0]) for *_, place in found}


def _is_local_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # no other machine's address can be bound
        except OSError:
            return False
    return True


def require_loopback_addresses(*addresses: str) -> None:
    """Raise ValueError for the first address that other machines can reach, or that is none."""
    for address in addresses:
        if not is_loopback(address):
            raise ValueError(
                f"{address} can be reached from other machines; add --token-file or --tls-client-ca, "
                "or --insecure-no-auth if everybody may send and read spans"
            )


def _make_listen_error(address: str, error: OSError) -> AddressUnavailable:
    if error.errno == errno.EADDRINUSE:
        return AddressUnavailable(
            f"{address} is in use; stop what listens there, or name another address (port 0 picks one)"
        )
    return AddressUnavailable(f"{address} cannot be listened on: {error.strerror}; name another address")
