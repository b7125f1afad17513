"""Host and port that a client called, from whatever attributes record them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.topology.extracted_attributes import ExtractedAttributes

_AUTHORITY_PATTERN: Final = (
    r"^(?:[A-Za-z][A-Za-z0-9+.\-]*://)?(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^:/?#]*)(?::(?P<port>[0-9]+))?"
)
_EMPTY_TEXT: Final = pa.scalar("", pa.string())
_COLON: Final = pa.scalar(":", pa.string())
_LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0")  # noqa: S104 (compared, not bound)


class Address(NamedTuple):
    """What a client called; `is_network_peer`: only the peer of the connection is known, such as a proxy."""

    server_address: str | None
    server_port: str | None
    is_network_peer: bool


def read_addresses(attributes: ExtractedAttributes) -> dict[str, pa.Array]:
    """Return the columns ``server_address``, ``server_port`` and ``address`` (``host:port``), null where unknown.

    The address of the server is preferred to that in a URL or a Host header, and these to that of the network peer:
    ``is_network_peer`` tells where only that is known.
    """
    host, port = _drop_empty(attributes.read("server_address")), attributes.read("server_port")
    for name in ("url", "host_header"):
        texts = attributes.read(name)
        is_needed = pc.and_(texts.is_valid(), pc.or_(host.is_null(), port.is_null()))
        if is_needed.true_count:
            found_host, found_port = _read_authorities(texts, is_needed)
            is_same = pc.or_kleene(host.is_null(), pc.equal(host, found_host)).fill_null(False)
            port = pc.coalesce(port, pc.if_else(is_same, found_port, pa.scalar(None, pa.string())))
            host = pc.coalesce(host, found_host)
    has_server = host.is_valid()
    network_host = attributes.read("network_address")
    if network_host.null_count < len(network_host):
        port = pc.coalesce(
            port, pc.if_else(host.is_null(), attributes.read("network_port"), pa.scalar(None, pa.string()))
        )
        host = pc.coalesce(host, _drop_empty(network_host))
    return {
        "server_address": host,
        "server_port": port,
        "is_network_peer": pc.and_not(host.is_valid(), has_server),
        "address": pc.coalesce(pc.binary_join_element_wise(host, port, _COLON), host),
    }


def _read_authorities(texts: pa.Array, is_needed: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the host and the port in each of the needed texts: URLs or Host headers."""
    needed = texts.filter(is_needed)
    parts = pc.extract_regex(needed, _AUTHORITY_PATTERN)
    if len(needed) < len(texts):
        positions = np.full(len(texts), -1)
        positions[is_needed.to_numpy(zero_copy_only=False)] = np.arange(len(needed))
        parts = parts.take(pa.array(positions, mask=positions < 0))
    host, port = (_drop_empty(pc.struct_field(parts, part)) for part in ("host", "port"))
    return host, port


def is_loopback(host: str) -> bool:
    """Return whether a host is the caller's own machine."""
    return host.lower() in _LOOPBACK_HOSTS or host.startswith("127.")


def do_addresses_differ(first: Address, second: Address) -> bool:
    """Return whether two addresses differ in a part that both have.

    That of a server and that of a network peer are not compared.
    """
    hosts = first.server_address, second.server_address
    if hosts[0] is None or hosts[1] is None or first.is_network_peer != second.is_network_peer:
        return False
    if hosts[0].lower() != hosts[1].lower() and not (is_loopback(hosts[0]) and is_loopback(hosts[1])):
        return True
    return None not in (first.server_port, second.server_port) and first.server_port != second.server_port


def _drop_empty(texts: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(texts, _EMPTY_TEXT), pa.scalar(None, pa.string()), texts)
