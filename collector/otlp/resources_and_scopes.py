"""Resources and scopes, decoded once for each distinct content."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import pyarrow as pa
from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.common.v1.common_pb2 import EntityRef

from spanproof.collector.otlp.attribute_encoding import ATTRIBUTES_TYPE
from spanproof.collector.otlp.attributes import decode_utf8, read_attributes
from spanproof.collector.otlp.descriptor import RESOURCE, SCOPE, FlatMessageReader, MalformedMessage
from spanproof.collector.otlp.json_mapping import dump_json, render_message
from spanproof.collector.otlp.rejections import Rejection, RejectionReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spanproof.collector.otlp.redaction import Redaction

UNKNOWN_SERVICE = "unknown_service"

_CACHE_SIZE = 4096
_ATTRIBUTE_FIELDS = [
    pa.field("attributes", ATTRIBUTES_TYPE),
    pa.field("attribute_kinds", pa.string()),
    pa.field("dropped_attributes_count", pa.uint32()),
]
_RESOURCES_SCHEMA = pa.schema(
    [
        pa.field("resource_key", pa.uint64()),
        pa.field("service", pa.string()),
        *_ATTRIBUTE_FIELDS,
        pa.field("entity_refs", pa.string()),
        pa.field("schema_url", pa.string()),
    ]
)
_SCOPES_SCHEMA = pa.schema(
    [
        pa.field("scope_key", pa.uint64()),
        pa.field("name", pa.string()),
        pa.field("version", pa.string()),
        *_ATTRIBUTE_FIELDS,
        pa.field("schema_url", pa.string()),
    ]
)


class ResourceOrScope(Struct, frozen=True):
    """One resource or scope: its key, its row, and the reason if it cannot be stored."""

    key: int
    service: str
    row: pa.Table
    rejection: Rejection | None


class ResourceOrScopeReader:
    """Reader of resources or scopes from their bytes, with a cache."""

    def __init__(self, full_name: str, redaction: Redaction) -> None:
        self._redaction = redaction
        self._label = {RESOURCE: "resource", SCOPE: "scope"}[full_name]
        self.schema = {RESOURCE: _RESOURCES_SCHEMA, SCOPE: _SCOPES_SCHEMA}[full_name]
        self._reader = FlatMessageReader(full_name)
        self._known: dict[tuple[bytes, bytes], ResourceOrScope] = {}

    def read(self, content: bytes, schema_url: bytes) -> ResourceOrScope:
        """Return one resource or scope."""
        known = self._known.get((content, schema_url))
        if known is None:
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            known = self._known[content, schema_url] = self._read(content, schema_url)
        return known

    def make_table(self, sources: Iterable[ResourceOrScope]) -> pa.Table:
        """Return resources or scopes as one table, each once."""
        rows = {source.key: source.row for source in sources if not source.rejection}
        return pa.concat_tables([self.schema.empty_table(), *rows.values()])

    def _read(self, content: bytes, schema_url: bytes) -> ResourceOrScope:
        rejection: Rejection | None
        try:
            self._reader.check(content)
            message = self._reader.read([content])
            columns, rejection = self._read_columns(message, schema_url)
        except (MalformedMessage, DecodeError):
            columns, rejection = {}, Rejection(RejectionReason.MALFORMED, "malformed")
        if rejection:
            return ResourceOrScope(
                0, UNKNOWN_SERVICE, self.schema.empty_table(), rejection.with_prefix(f"{self._label}: ")
            )
        content_hash = blake2b(
            dump_json([column.to_pylist() for column in columns.values()]).encode(), digest_size=8
        ).digest()
        key = int.from_bytes(content_hash, "big")
        service = _read_service_name(columns)
        # the schema of scopes has no column for the service
        columns |= {f"{self._label}_key": pa.array([key], pa.uint64()), "service": pa.array([service])}
        row = pa.table([columns[name] for name in self.schema.names], schema=self.schema)
        return ResourceOrScope(key, service, row, None)

    def _read_columns(self, message: pa.RecordBatch, schema_url: bytes) -> tuple[dict[str, pa.Array], Rejection | None]:
        attributes = read_attributes(message["attributes"], self._redaction)
        rejection = attributes.rejections.get(0)
        columns = {
            "attributes": attributes.lists,
            "attribute_kinds": attributes.kinds,
            "dropped_attributes_count": message["dropped_attributes_count"],
        }
        texts = {"schema_url": pa.array([schema_url])}
        if self.schema is _RESOURCES_SCHEMA:
            columns["entity_refs"] = pa.array([_render_entity_refs(message["entity_refs"][0].as_py())])
        else:
            texts |= {"name": message["name"], "version": message["version"]}
        for name, raw in texts.items():
            columns[name], bad = decode_utf8(raw)
            if bad:
                rejection = Rejection(RejectionReason.TEXT, f"{name} is not valid UTF-8")
        return columns, rejection


def _render_entity_refs(refs: list[bytes]) -> str:
    return dump_json([render_message(EntityRef.FromString(ref)) for ref in refs])


def _read_service_name(columns: dict[str, pa.Array]) -> str:
    attributes, kinds = columns["attributes"][0].as_py(), columns["attribute_kinds"][0].as_py()
    for key, text, kind in zip(attributes["keys"], attributes["texts"], kinds, strict=True):
        if key == "service.name" and kind == "s" and text:
            return str(text)
    return UNKNOWN_SERVICE
