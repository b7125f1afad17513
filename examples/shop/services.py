"""The services of the shop, the services that each calls, and the protocol of its spans."""

from dataclasses import dataclass
from typing import Literal

NATS_URL_VARIABLE = "SHOP_NATS_URL"


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the shop; `module` contains its routes."""

    name: str
    module: str
    calls: tuple[str, ...] = ()
    otlp_protocol: Literal["grpc", "http/protobuf"] = "http/protobuf"


SERVICES = (
    Service("bank", "bank", otlp_protocol="grpc"),
    Service("bank-backup", "bank"),
    Service("inventory", "inventory"),
    Service("inventory-legacy", "inventory"),
    Service("payments", "payments", calls=("bank", "bank-backup")),
    Service("notifications", "notifications"),
    Service("orders", "orders", calls=("inventory", "inventory-legacy", "payments"), otlp_protocol="grpc"),
    Service("gateway", "gateway", calls=("orders",)),
)


def name_url_variable(service: str) -> str:
    """Return the name of the environment variable with the address of a service."""
    return f"SHOP_{service.upper().replace('-', '_')}_URL"
