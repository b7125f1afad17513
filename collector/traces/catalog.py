"""Catalog of a store: services with their operations, and attribute names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.store import Store


class Catalog(Struct, frozen=True):
    """Operations by service, including peers without spans of their own, and attribute names.

    Names of resource and scope attributes have the prefix ``resource.`` or ``scope.``.
    """

    operations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()


def read_catalog(db: str | Path) -> Catalog:
    """Return the catalog of a store file. Raise UserError."""
    with Store.open(db) as store:
        derive_calls(store)
        connection = store.cursor()
        operations: dict[str, list[str]] = {}
        name_rows = connection.execute(
            "SELECT service, name FROM spans UNION SELECT callee, operation FROM attempts ORDER BY ALL"
        )
        for service, name in name_rows.fetchall():
            operations.setdefault(service, []).append(name)
        attribute_rows = connection.execute(
            "SELECT unnest(attributes.keys) AS name FROM spans"
            " UNION SELECT unnest(flatten(list_transform(events, lambda event: event.attributes.keys))) FROM spans"
            " UNION SELECT unnest(flatten(list_transform(links, lambda link: link.attributes.keys))) FROM spans"
            " UNION SELECT 'resource.' || unnest(attributes.keys) FROM resources"
            " UNION SELECT 'scope.' || unnest(attributes.keys) FROM scopes ORDER BY name"
        )
        attributes = tuple(str(name) for (name,) in attribute_rows.fetchall())
        connection.close()
    return Catalog({service: tuple(service_names) for service, service_names in operations.items()}, attributes)
