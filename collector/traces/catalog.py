"""What a store has seen: services with their operations, and names of attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.store import Store


@dataclass(frozen=True, slots=True)
class Catalog:
    """Operations by service, peers that sent no span of their own included, and attribute names.

    Attributes of a resource or a scope are preceded by ``resource.`` and ``scope.``.
    """

    operations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()


def read_catalog(db: str | Path) -> Catalog:
    """Read what the store in a file has seen. Raises UserError."""
    with Store.open(db) as store:
        derive_calls(store)
        connection = store.cursor()
        operations: dict[str, list[str]] = {}
        found = connection.execute(
            "SELECT service, name FROM spans UNION SELECT callee, operation FROM attempts ORDER BY ALL"
        )
        for service, name in found.fetchall():
            operations.setdefault(service, []).append(name)
        names = connection.execute(
            "SELECT unnest(attributes.keys) AS name FROM spans"
            " UNION SELECT unnest(flatten(list_transform(events, lambda event: event.attributes.keys))) FROM spans"
            " UNION SELECT unnest(flatten(list_transform(links, lambda link: link.attributes.keys))) FROM spans"
            " UNION SELECT 'resource.' || unnest(attributes.keys) FROM resources"
            " UNION SELECT 'scope.' || unnest(attributes.keys) FROM scopes ORDER BY name"
        )
        attributes = tuple(str(name) for (name,) in names.fetchall())
        connection.close()
    return Catalog({service: tuple(names) for service, names in operations.items()}, attributes)
