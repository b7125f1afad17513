"""What a request asked for: its method, its target, and the attributes that identify its subject."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.otlp.application_attributes import is_application_attribute, may_identify_subject, split_words
from spanproof.collector.storage.arrow_columns import MISSING_ROW
from spanproof.collector.topology.span_batch import SpanBatch

PROTOCOLS: Final = ("db", "messaging", "rpc", "http", "other")
# RFC 9110, section 9.2.2
IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
IDEMPOTENCY_KEYS: Final = (
    "http.request.header.idempotency-key",
    "http.request.header.idempotency_key",
    "http.request.header.x-idempotency-key",
    "rpc.request.metadata.idempotency-key",
    "rpc.grpc.request.metadata.idempotency-key",
)
_NAMING_WORDS: Final = frozenset({"id", "key", "uuid", "number", "digest", "hash"})
# conventional attributes that identify what was asked for, besides those that are part of the target
_SUBJECTS: Final = frozenset({
    "messaging.message.id", "messaging.message_id", "messaging.kafka.offset", "messaging.kafka.message.offset",
    "messaging.kafka.message.key", "bullmq.job.id", "db.collection.name", "db.mongodb.collection", "db.sql.table",
    "aws.dynamodb.table_names", "aws.s3.bucket", "aws.s3.key",
})  # fmt: skip
_METADATA_PREFIXES: Final = ("rpc.request.metadata.", "rpc.grpc.request.metadata.", "rpc.connect_rpc.request.metadata.")
# metadata that differ between the attempts of one call
_PER_ATTEMPT_METADATA: Final = frozenset(
    {"traceparent", "tracestate", "baggage", "b3", "uber-trace-id", "grpc-timeout", "grpc-previous-rpc-attempts"}
)
_REDACTED_QUERY: Final = re.compile(r"(^|=)(\*+|\[?(redacted|filtered|masked)\]?)(&|$)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_SPELLINGS: Final = {name: semconv.list_spellings(stable) for name, stable in semconv.EXTRACTED_ATTRIBUTES.items()}


class RequestIdentity(Struct, frozen=True):
    """What a request asked for. ``is_exact``: `target` is complete, so that equal targets are the same resource.

    ``parameters`` are statement parameters. ``things`` are the attributes that name a thing. ``distinguishing`` are all
    attributes that identify what was asked for, of the exit span and of the server span.
    """

    method: str | None
    address: str
    target: str  # without the address
    is_exact: bool
    is_idempotent: bool
    parameters: Mapping[str, str]
    things: tuple[Mapping[str, str], Mapping[str, str]]
    distinguishing: tuple[Mapping[str, str], Mapping[str, str]]


def identify_request(spans: SpanBatch, exit_row: int, server_row: int, protocol: str) -> RequestIdentity:
    """Return what an attempt asked for; a missing exit span or server span is `MISSING_ROW`."""
    client, server = _read_attributes(spans, exit_row), _read_attributes(spans, server_row)
    name = str(spans.column("name")[server_row if exit_row == MISSING_ROW else exit_row])
    return _identify(client, server, name, protocol, has_exit=exit_row != MISSING_ROW)


def _read_attributes(spans: SpanBatch, row: int) -> dict[str, str]:
    if row == MISSING_ROW:
        return {}
    keys, texts = (spans.column(name)[row].as_py() for name in ("keys", "texts"))
    return {key: text for key, text in zip(keys, texts, strict=True) if text is not None}


def _read(attributes: Mapping[str, str], name: str) -> str | None:
    for spelling in _SPELLINGS[name]:
        if spelling in attributes:
            return attributes[spelling]
    return None


def _identify(
    client: dict[str, str], server: dict[str, str], name: str, protocol: str, *, has_exit: bool
) -> RequestIdentity:
    caller_side = client if has_exit else server
    http_method, rpc_method = (_read(caller_side, key) or _read(server, key) for key in ("http_method", "rpc_method"))
    client_address, client_path = _read_address_and_path(client)
    server_address, server_path = _read_address_and_path(server)
    address = client_address if has_exit else server_address
    path = server_path if client_path is None else client_path
    is_exact = True
    parts: tuple[str | None, ...]
    match protocol:
        case "db":
            statement = _read(caller_side, "db_statement")
            parts = (_read(caller_side, "db_system"), _read(caller_side, "db_namespace"), statement or name)
            address = ""
        case "messaging":
            parts = tuple(_read(caller_side, key) for key in ("messaging_system", "destination", "message_id"))
            parts = parts if any(parts) else (name,)
            address = ""
        case "rpc":
            parts = (_read(caller_side, "rpc_service"), rpc_method) if rpc_method else (name,)
            address = ""
        case "http":
            is_exact = path is not None and not _is_redacted(path)
            parts = (name if path is None else path,)
        case _:
            parts = (name,)
    target = " ".join(part for part in parts if part is not None)
    parameters = {
        key: text
        for key, text in caller_side.items()
        if key.startswith(("db.query.parameter.", "db.operation.parameter."))
    }
    return RequestIdentity(
        rpc_method if protocol == "rpc" else http_method,
        "" if address is None else address,
        target,
        is_exact,
        is_idempotent=protocol == "http" and http_method in IDEMPOTENT_METHODS,
        parameters=parameters,
        things=(_select_things(client), _select_things(server)),
        distinguishing=(_select_distinguishing(client, client_path), _select_distinguishing(server, server_path)),
    )


def _read_address_and_path(attributes: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return host and port, and path and query, from whatever records them."""
    host, port, scheme = (_read(attributes, key) for key in ("server_address", "server_port", "url_scheme"))
    url, path, query = (_read(attributes, key) for key in ("url", "url_path", "url_query"))
    if url is not None:
        try:
            parts = urlsplit(url)
        except ValueError:  # no URL after all, such as one with an unclosed bracket
            parts = urlsplit("")
        authority = parts.netloc.rpartition("@")[2]
        if authority:
            host, _, port = authority.rpartition(":") if re.search(r":\d+$", authority) else (authority, "", "")
        scheme, path, query = parts.scheme or scheme, parts.path or path or "/", parts.query or None
    elif host is None:
        host = _read(attributes, "host_header")
    if host is not None:
        is_default = not port or _DEFAULT_PORTS.get(scheme or "") == port
        host = host.lower() if is_default else f"{host.lower()}:{port}"
    if path is None:
        return host, None
    return host, path if query is None or "?" in path else f"{path}?{query.removeprefix('?')}"


def _is_redacted(path: str) -> bool:
    _, mark, query = path.partition("?")
    return bool(mark) and _REDACTED_QUERY.search(query) is not None


def _select_things(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that name a thing: application attributes such as `order.id`, and idempotency keys."""
    return {name: text for name, text in attributes.items() if _names_thing(name)}


@cache
def _names_thing(name: str) -> bool:
    if name in IDEMPOTENCY_KEYS:
        return True
    words = split_words(name)
    return is_application_attribute(name) and bool(words) and words[-1] in _NAMING_WORDS


def _select_distinguishing(attributes: Mapping[str, str], path: str | None) -> dict[str, str]:
    """Return the attributes that identify what was asked for."""
    selected = {name: text for name, text in attributes.items() if _is_distinguishing(name)}
    if path is not None:
        selected["url.path"] = path
    return selected


@cache
def _is_distinguishing(name: str) -> bool:
    if name in IDEMPOTENCY_KEYS or name in _SUBJECTS:
        return True
    if name.startswith(_METADATA_PREFIXES):
        return name.rpartition(".")[2] not in _PER_ATTEMPT_METADATA
    if name.startswith(("db.query.parameter.", "db.operation.parameter.", "graphql.", "rpc.request.")):
        return True
    return may_identify_subject(name)
