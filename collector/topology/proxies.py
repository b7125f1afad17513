"""Sidecars: spans of proxies between caller and callee, which are not hops of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.storage.arrow_columns import BoolArray, to_bool_array
from spanproof.collector.topology.extracted_attributes import ExtractedAttributes
from spanproof.collector.topology.span_batch import SpanBatch

if TYPE_CHECKING:
    import duckdb

_SELECTOR: Final = re.compile(
    r'(?P<service>[^\s"\[\]]+|"[^"]+")(?:\[\s*(?P<attribute>[^\s="]+)\s*==\s*"(?P<value>[^"]*)"\s*\])?'
)


class ProxySelector(Struct, frozen=True):
    """The spans of a service, or those with a value of an attribute or of ``scope.name``; ``*`` is any service."""

    service: str
    attribute: str | None = None
    value: str = ""


def parse_proxy(text: str) -> ProxySelector:
    """Return the selector in a text such as ``envoy`` or ``orders[scope.name == "dapr"]``. Raises ValueError."""
    match = _SELECTOR.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'`{text}` is not a sidecar, such as `envoy` or `orders[scope.name == "dapr"]`')
    return ProxySelector(match["service"].strip('"'), match["attribute"], match["value"] or "")


class Proxies(Struct, frozen=True):
    """The sidecars of a store; ``scope_keys`` are the keys of the scopes that selectors name."""

    selectors: tuple[ProxySelector, ...] = ()
    scope_keys: tuple[tuple[str, frozenset[int]], ...] = ()

    def find(self, spans: SpanBatch) -> BoolArray:
        """Return which spans are those of sidecars."""
        found = np.zeros(len(spans), np.bool_)
        for selector in self.selectors:
            found |= self._find(selector, spans)
        return found

    def _find(self, selector: ProxySelector, spans: SpanBatch) -> BoolArray:
        of_service = (
            np.ones(len(spans), np.bool_) if selector.service == "*" else spans.is_of_services({selector.service})
        )
        if selector.attribute is None:
            return of_service
        if selector.attribute == "scope.name":
            keys = dict(self.scope_keys).get(selector.value, frozenset())
            return of_service & to_bool_array(
                pc.is_in(spans.column("scope_key"), pa.array(sorted(keys), spans.column("scope_key").type))
            )
        attributes = ExtractedAttributes(spans.column("keys"), spans.column("texts"))
        texts = attributes.read_key(selector.attribute.removeprefix("span."))
        return of_service & to_bool_array(pc.equal(texts, pa.scalar(selector.value, pa.string())))


def read_proxies(connection: duckdb.DuckDBPyConnection, texts: Iterable[str]) -> Proxies:
    """Return the sidecars that the rules of a store declare."""
    selectors = tuple(map(parse_proxy, texts))
    return Proxies(selectors, tuple(_read_scope_keys(connection, selectors)))


def _read_scope_keys(
    connection: duckdb.DuckDBPyConnection, selectors: tuple[ProxySelector, ...]
) -> Iterator[tuple[str, frozenset[int]]]:
    for selector in selectors:
        if selector.attribute == "scope.name":
            rows = connection.execute("SELECT scope_key FROM scopes WHERE name = $name", {"name": selector.value})
            yield selector.value, frozenset(int(key) for (key,) in rows.fetchall())
