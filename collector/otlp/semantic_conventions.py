"""Attribute names of the stable OpenTelemetry semantic conventions, and their deprecated names.

Sources: the migration guides of the semantic conventions 1.x (HTTP, database, RPC, messaging, general attributes),
https://opentelemetry.io/docs/specs/semconv/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DEPRECATED_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "client.address": ("http.client_ip",),
    "db.collection.name": ("db.sql.table", "db.mongodb.collection", "db.cassandra.table"),
    "db.namespace": ("db.name", "db.redis.database_index"),
    "db.operation.name": ("db.operation",),
    "db.query.text": ("db.statement",),
    "db.system.name": ("db.system",),
    "deployment.environment.name": ("deployment.environment",),
    "gen_ai.provider.name": ("gen_ai.system",),
    "http.request.body.size": ("http.request_content_length",),
    "http.request.method": ("http.method",),
    "http.request.resend_count": ("http.resend_count",),
    "http.response.body.size": ("http.response_content_length",),
    "http.response.status_code": ("http.status_code",),
    "messaging.consumer.group.name": ("messaging.kafka.consumer.group", "messaging.eventhubs.consumer.group"),
    "messaging.destination.name": ("messaging.destination",),
    "messaging.destination.partition.id": ("messaging.kafka.destination.partition", "messaging.kafka.partition"),
    "messaging.kafka.offset": ("messaging.kafka.message.offset",),
    # no stable name exists yet: the counters of two systems
    "messaging.message.delivery_count": (
        "messaging.servicebus.message.delivery_count",
        "messaging.gcp_pubsub.message.delivery_attempt",
    ),
    "messaging.message.id": ("messaging.message_id",),
    "messaging.operation.type": ("messaging.operation",),
    "network.peer.address": ("net.sock.peer.addr", "net.peer.ip"),
    "network.peer.port": ("net.sock.peer.port",),
    "network.protocol.name": ("net.protocol.name",),
    "network.protocol.version": ("net.protocol.version", "http.flavor"),
    "rpc.response.status_code": ("rpc.grpc.status_code", "rpc.connect_rpc.error_code", "rpc.jsonrpc.error_code"),
    "rpc.system.name": ("rpc.system",),
    "server.address": ("net.peer.name", "net.host.name"),
    "server.port": ("net.peer.port", "net.host.port"),
    "service.peer.name": ("peer.service",),
    "url.full": ("http.url",),
    "url.path": ("http.target",),
    "url.scheme": ("http.scheme",),
    "user_agent.original": ("http.user_agent",),
}

# Name used by the derivation of calls -> attribute that it reads (see calls/extracted_attributes.py).
EXTRACTED_ATTRIBUTES: Final[Mapping[str, str]] = {
    "consumer_group": "messaging.consumer.group.name",
    "db_namespace": "db.namespace",
    "db_statement": "db.query.text",
    "db_system": "db.system.name",
    "destination": "messaging.destination.name",
    "error_type": "error.type",
    "gen_ai_provider": "gen_ai.provider.name",
    "host_header": "http.host",
    "http_method": "http.request.method",
    "http_status": "http.response.status_code",
    "message_id": "messaging.message.id",
    "message_offset": "messaging.kafka.offset",
    "message_partition": "messaging.destination.partition.id",
    "messaging_operation": "messaging.operation.type",
    "messaging_system": "messaging.system",
    "network_address": "network.peer.address",
    "network_port": "network.peer.port",
    "peer_name": "service.peer.name",
    "rpc_method": "rpc.method",
    "rpc_service": "rpc.service",
    "rpc_status": "rpc.response.status_code",
    "rpc_system": "rpc.system.name",
    "server_address": "server.address",
    "server_port": "server.port",
    "url": "url.full",
    "url_path": "url.path",
    "url_query": "url.query",
    "url_scheme": "url.scheme",
}

SPAN_KINDS: Final[Mapping[str, int]] = {
    "unspecified": 0,
    "internal": 1,
    "server": 2,
    "client": 3,
    "producer": 4,
    "consumer": 5,
}
STATUS_CODES: Final[Mapping[str, int]] = {"unset": 0, "ok": 1, "error": 2}


def list_spellings(name: str) -> tuple[str, ...]:
    """Return every attribute name for the value of the stable `name`, the stable one first."""
    return (name, *DEPRECATED_NAMES.get(name, ()))
