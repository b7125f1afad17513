"""Listen addresses, as `host:port`."""

from __future__ import annotations

import errno
import ipaddress
import socket
from urllib.parse import urlsplit

from spanproof.collector.user_errors import UserError


class AddressUnavailable(UserError):
    """An address that the collector cannot listen on; the message says which one and what to do."""


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`; an IPv6 host is in brackets."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.netloc != address:
        raise ValueError(f"{address!r} is not an address; write host:port, such as 127.0.0.1:4317")
    return host, port


def replace_port(address: str, port: int) -> str:
    """Return `address` with the port that was bound."""
    return f"{address.rpartition(':')[0]}:{port}"


def open_listener(address: str) -> socket.socket:
    """Listen on `host:port`. Raise AddressUnavailable, or ValueError for an invalid address."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, socket_address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise _make_listen_error(address, error) from error
    # with an explicit protocol, unlike create_server: otherwise asyncio does not disable Nagle's algorithm
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(socket_address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _make_listen_error(address, error) from error
    return listener


def is_loopback(address: str) -> bool:
    """Return whether `host:port` is reachable only from this machine."""
    host, _ = split_address(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_endpoint_of_listener(address: str, host: str, port: int) -> bool:
    """Return whether a connection from this machine to host and port reaches the listener at `address`."""
    own_host, own_port = split_address(address)
    if port != own_port:
        return False
    own_addresses, addresses = _resolve(own_host), _resolve(host)
    if any(each.is_unspecified for each in own_addresses):
        return any(_is_local_address(each) for each in addresses)
    return bool(own_addresses & addresses)


def _resolve(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        results = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # the name cannot be resolved at present
        return set()
    return {ipaddress.ip_address(socket_address[0]) for *_, socket_address in results}


def _is_local_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # only addresses of this machine can be bound
        except OSError:
            return False
    return True


def require_loopback_addresses(*addresses: str) -> None:
    """Raise ValueError for the first address that is reachable from other machines or invalid."""
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
    return AddressUnavailable(f"cannot listen on {address}: {error.strerror}; name another address")
