"""What an attempt asks for: its address, protocol and target, and whether two attempts ask for the same thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from spanproof.collector.otlp.application_attributes import is_application_attribute, may_identify_subject, split_words
from spanproof.tests.reference.spans import Span, Value, as_text, read

if TYPE_CHECKING:
    from spanproof.tests.reference.attempts import Try

IDEMPOTENT: Final = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE")
PORTS: Final = {"http": "80", "https": "443"}
THING_WORDS: Final = ("id", "key", "uuid", "number", "digest", "hash")
LOOPBACK: Final = ("localhost", "::1")
IDENTIFYING: Final = (
    "rpc.service", "rpc.method", "url.query", "url.path", "messaging.message.id", "messaging.kafka.offset",
    "bullmq.job.id", "db.collection.name", "http.request.header.idempotency-key",
)  # fmt: skip
IDENTIFYING_PREFIXES: Final = ("db.query.parameter.", "graphql.", "rpc.request.", "url.")


def text_of(span: Span, name: str) -> str | None:
    return as_text(read(span.attributes, name))


def address_of(span: Span) -> tuple[str, str | None] | None:
    """Return the address and port that a span names; the default port of a URL is left out."""
    url = text_of(span, "url.full")
    parts = urlsplit(url) if url else None
    host = text_of(span, "server.address") or (parts.hostname if parts else None)
    if host is None:
        return None
    port = text_of(span, "server.port")
    if port is None and parts is not None and parts.port is not None:
        port = str(parts.port)
    scheme = (parts.scheme if parts else None) or text_of(span, "url.scheme") or ""
    return host.lower(), None if port == PORTS.get(scheme) else port


def network_peer_of(span: Span) -> tuple[str, str | None] | None:
    """Return the address and port of the other end of the connection."""
    host = text_of(span, "network.peer.address")
    return None if host is None else (host, text_of(span, "network.peer.port"))


def _address_of_target(span: Span) -> tuple[str, str | None] | None:
    """Return the address in the URL that was asked for, else the address that the span names."""
    url = text_of(span, "url.full")
    parts = urlsplit(url) if url else None
    if parts is None or parts.hostname is None:
        return address_of(span)
    port = None if parts.port is None else str(parts.port)
    return parts.hostname, None if port == PORTS.get(parts.scheme) else port


def differ(one: tuple[str, str | None] | None, other: tuple[str, str | None] | None) -> bool:
    """Return whether two addresses are known to differ."""
    if one is None or other is None:
        return False
    return one[0] != other[0] or (None not in (one[1], other[1]) and one[1] != other[1])


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def protocol_of(span: Span) -> str | None:
    """Return the protocol that a span's attributes name."""

    def has(*names: str) -> bool:
        return any(read(span.attributes, name) is not None for name in names)

    if has("db.system.name"):
        return "db"
    if has("messaging.system"):
        return "messaging"
    if has("rpc.system.name", "rpc.service"):
        return "rpc"
    return "http" if has("http.request.method", "url.full", "http.response.status_code") else None


def split_url(span: Span) -> tuple[str | None, str | None, str | None]:
    """Return scheme, path and query as recorded."""
    url = text_of(span, "url.full")
    if url:
        parts = urlsplit(url)
        return parts.scheme, parts.path or "/", parts.query or None
    path, query = text_of(span, "url.path"), text_of(span, "url.query")
    if path is not None and "?" in path:
        path, _, query = path.partition("?")
    return text_of(span, "url.scheme"), path, query


def has_full_url(span: Span) -> bool:
    """Return whether the path is known and the query is not redacted."""
    _, path, query = split_url(span)
    return path is not None and not (query is not None and (query == "*" or "REDACTED" in query))


def target_of(one: Try, *, with_address: bool) -> tuple[object, ...]:
    """Return the protocol and the target of an attempt."""
    span, protocol = one.primary_span, one.protocol
    address = address_of(span)
    if protocol == "http":
        scheme, path, query = split_url(span)
        what = (span.name,) if path is None else (path, query)
        return ("http", what, *((scheme, _address_of_target(span)) if with_address else ()))
    if protocol == "rpc":
        named = text_of(span, "rpc.service"), text_of(span, "rpc.method")
        return ("rpc", *named) if named[1] else ("rpc", span.name)
    if protocol == "db":
        return "db", text_of(span, "db.system.name"), text_of(span, "db.namespace"), (
            text_of(span, "db.query.text") or span.name
        )  # fmt: skip
    if protocol == "messaging":
        destination, id_ = text_of(span, "messaging.destination.name"), text_of(span, "messaging.message.id")
        return ("messaging", destination, id_) if destination or id_ else ("messaging", span.name)
    return "other", span.name, address


def name_target(one: Try) -> str | None:
    """Return what the target of an attempt is called where it has no more than a name, or None if it has more."""
    span = one.primary_span
    _, path, query = split_url(span)
    if one.protocol == "http" and path is not None:
        return path if query is None else f"{path}?{query}"
    has_more = one.protocol == "db" or len(target_of(one, with_address=False)) > 2 or text_of(span, "rpc.method")
    return span.name if one.protocol in ("http", "other") or not has_more else None


def message_of(one: Try) -> tuple[object, ...] | None:
    """Return the identity of a message or task, if it has one."""
    spans = [span for span in (one.server, one.exit) if span is not None]

    def first(name: str) -> str | None:
        return next((text for span in spans if (text := text_of(span, name)) is not None), None)

    destination, id_ = first("messaging.destination.name"), first("messaging.message.id")
    if id_ is not None:
        return first("messaging.system"), destination, id_
    partition, offset = first("messaging.destination.partition.id"), first("messaging.kafka.offset")
    return None if offset is None or partition is None else (destination, partition, offset, "offset")


# ## The same thing


def asks_again(one: Try, other: Try) -> bool:
    """Return whether something records that two attempts of one target ask for the same thing."""
    if one.wrappers and other.wrappers and one.wrappers[0] is other.wrappers[0]:
        return True
    span, next_ = one.primary_span, other.primary_span
    if one.protocol == "http" and (text_of(span, "http.request.method") or "").upper() in IDEMPOTENT:
        return has_full_url(span) and has_full_url(next_)
    return any(
        _is_recorded_thing(name) and name in after and as_text(after[name]) == as_text(value) is not None
        for before, after in _pairs(one, other)
        for name, value in before.items()
    )


def _is_recorded_thing(name: str) -> bool:
    if name.startswith("db.query.parameter.") or name == "http.request.header.idempotency-key":
        return True
    return is_application_attribute(name) and split_words(name)[-1:] in [(word,) for word in THING_WORDS]


def asks_otherwise(one: Try, other: Try) -> bool:
    """Return whether an attribute that identifies what was asked for differs."""
    messages = message_of(one), message_of(other)
    if None not in messages and messages[0] != messages[1]:
        return True
    for span, next_ in _span_pairs(one, other):
        if text_of(span, "url.full") and text_of(next_, "url.full") and split_url(span)[1:] != split_url(next_)[1:]:
            return True
    for before, after in _pairs(one, other):
        for name in {*before, *after}:
            if _is_identifying(name) and _record_differently(before.get(name), after.get(name)):
                return True
        for name in IDENTIFYING:
            if _record_differently(read(before, name), read(after, name)):
                return True
    return False


def _record_differently(one: Value | None, other: Value | None) -> bool:
    """Return whether both values are recorded and differ; 2 and "2" are the same."""
    if one is None or other is None:
        return False
    texts = as_text(one), as_text(other)
    return one != other if None in texts else texts[0] != texts[1]


def _is_identifying(name: str) -> bool:
    if name.startswith(IDENTIFYING_PREFIXES):
        return name not in ("url.full", "url.scheme", "url.domain", "url.port")
    return may_identify_subject(name)


def _span_pairs(one: Try, other: Try) -> Iterator[tuple[Span, Span]]:
    if one.exit is not None and other.exit is not None:
        yield one.exit, other.exit
    if one.server is not None and other.server is not None:
        yield one.server, other.server


def _pairs(one: Try, other: Try) -> Iterator[tuple[dict[str, Value], dict[str, Value]]]:
    return ((span.attributes, next_.attributes) for span, next_ in _span_pairs(one, other))
