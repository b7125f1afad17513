"""Decoded spans as columns of the `spans` table, with the rejections of invalid spans."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.otlp.attribute_encoding import ATTRIBUTES_TYPE
from spanproof.collector.otlp.attributes import decode_utf8, read_attributes
from spanproof.collector.otlp.rejections import Rejection, RejectionReason
from spanproof.collector.otlp.repeated_fields import FlattenedList

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanproof.collector.otlp.redaction import Redaction

# typed scalars: pyarrow compares unsigned numbers with a Python int as signed numbers
_ZERO = pa.scalar(0, pa.uint64())
_LATEST_NS = pa.scalar(2**63 - 1, pa.uint64())
_ID_BYTES = 8
_TRACE_ID_BYTES = 16

_EVENT_TYPE = pa.struct(
    [
        ("time_ns", pa.int64()),
        ("name", pa.string()),
        ("attributes", ATTRIBUTES_TYPE),
        ("attribute_kinds", pa.string()),
        ("dropped_attributes_count", pa.uint32()),
    ]
)
_LINK_TYPE = pa.struct(
    [
        ("trace_id", pa.uuid()),
        ("span_id", pa.uint64()),
        ("trace_state", pa.string()),
        ("flags", pa.uint32()),
        ("attributes", ATTRIBUTES_TYPE),
        ("attribute_kinds", pa.string()),
        ("dropped_attributes_count", pa.uint32()),
    ]
)


class _MessageRows:
    """Rows of one repeated message, read column by column; `reject` receives the rows that cannot be stored."""

    def __init__(self, rows: pa.StructArray, redaction: Redaction, reject: Callable[[int, Rejection], None]) -> None:
        self.rows = rows
        self.redaction = redaction
        self.reject = reject

    def read_text(self, name: str, label: str) -> pa.StringArray:
        texts, bad = decode_utf8(self.rows.field(name))
        for row in bad:
            self.reject(row, Rejection(RejectionReason.TEXT, f"{label} is not valid UTF-8"))
        return texts

    def read_time(self, name: str, label: str) -> pa.Int64Array:
        times = self.rows.field(name)
        late = pc.greater(times, _LATEST_NS)
        for row in pc.indices_nonzero(late).to_pylist():
            self.reject(row, Rejection(RejectionReason.TIME, f"{label} is {times[row]}, later than {_LATEST_NS}"))
        return pc.if_else(late, _ZERO, times).cast(pa.int64())

    def read_id(self, name: str, label: str, width: int, *, optional: bool) -> pa.FixedSizeBinaryArray:
        """Read an id of `width` bytes; an absent optional id becomes null, an invalid one null or zeros."""
        ids = self.rows.field(name)
        zeros = pa.scalar(bytes(width), pa.binary())
        lengths = pc.binary_length(ids)
        has_width = pc.equal(lengths, pa.scalar(width, lengths.type))
        if not pc.all(has_width).as_py():
            wrong = (
                pc.and_(pc.invert(has_width), pc.not_equal(lengths, pa.scalar(0, lengths.type)))
                if optional
                else pc.invert(has_width)
            )
            for row in pc.indices_nonzero(wrong).to_pylist():
                self.reject(row, Rejection(RejectionReason.ID, f"{label} is {lengths[row]} bytes long, not {width}"))
            ids = pc.if_else(has_width, ids, zeros)
        if not optional:
            for row in pc.indices_nonzero(pc.and_(has_width, pc.equal(ids, zeros))).to_pylist():
                self.reject(row, Rejection(RejectionReason.ID, f"{label} is all zeros"))
        fixed = ids.cast(pa.binary(width))
        return pc.if_else(has_width, fixed, pa.scalar(None, pa.binary(width))) if optional else fixed

    def read_attributes(self) -> list[pa.Array]:
        """Read the attributes: keys and texts, kinds, and the number of dropped attributes."""
        attributes = read_attributes(self.rows.field("attributes"), self.redaction)
        for row, rejection in attributes.rejections.items():
            self.reject(row, rejection)
        return [attributes.lists, attributes.kinds, self.rows.field("dropped_attributes_count")]

    def read_nested(self, name: str) -> tuple[_MessageRows, pa.Int32Array]:
        """Read the rows of a message nested in these rows, and their offsets; a rejection applies to the outer row."""
        inner = FlattenedList(self.rows.field(name))

        def reject_parent(row: int, rejection: Rejection) -> None:
            parent, index = inner.find_parent(row)
            self.reject(parent, rejection.with_prefix(f"{name}[{index}]."))

        return _MessageRows(inner.rows, self.redaction, reject_parent), inner.offsets


def read_span_columns(spans: pa.StructArray, redaction: Redaction) -> tuple[dict[str, pa.Array], dict[int, Rejection]]:
    """Return the columns of the spans, and the rejections by row."""
    rejections: dict[int, Rejection] = {}

    def reject(row: int, rejection: Rejection) -> None:
        rejections.setdefault(row, rejection)

    rows = _MessageRows(spans, redaction, reject)
    trace_ids = rows.read_id("trace_id", "traceId", _TRACE_ID_BYTES, optional=False)
    span_ids = rows.read_id("span_id", "spanId", _ID_BYTES, optional=False)
    parent_ids = _read_big_endian(rows.read_id("parent_span_id", "parentSpanId", _ID_BYTES, optional=True))
    message, code = spans.field("status").flatten()
    status_messages, bad_messages = decode_utf8(message)
    for row in bad_messages:
        rows.reject(row, Rejection(RejectionReason.TEXT, "status.message is not valid UTF-8"))
    attributes, kinds, dropped = rows.read_attributes()
    columns = {
        "trace_id": pa.ExtensionArray.from_storage(pa.uuid(), trace_ids),
        "span_id": _read_big_endian(span_ids),
        "parent_id": pc.if_else(pc.equal(parent_ids, _ZERO), pa.scalar(None, pa.uint64()), parent_ids),
        "trace_state": rows.read_text("trace_state", "traceState"),
        "flags": spans.field("flags"),
        "name": redaction.redact_texts(rows.read_text("name", "name")),
        "kind": spans.field("kind"),
        "start_ns": rows.read_time("start_time_unix_nano", "startTimeUnixNano"),
        "end_ns": rows.read_time("end_time_unix_nano", "endTimeUnixNano"),
        "status": code.fill_null(0),
        "status_message": redaction.redact_texts(status_messages.fill_null("")),
        "attributes": attributes,
        "attribute_kinds": kinds,
        "dropped_attributes_count": dropped,
        "events": _read_list(rows, "events", _EVENT_TYPE, _read_events),
        "dropped_events_count": spans.field("dropped_events_count"),
        "links": _read_list(rows, "links", _LINK_TYPE, _read_links),
        "dropped_links_count": spans.field("dropped_links_count"),
    }
    return columns, rejections


def _read_events(events: _MessageRows) -> list[pa.Array]:
    return [
        events.read_time("time_unix_nano", "timeUnixNano"),
        events.redaction.redact_texts(events.read_text("name", "name")),
        *events.read_attributes(),
    ]


def _read_links(links: _MessageRows) -> list[pa.Array]:
    # a link may lack its ids: the specification allows a link that only has attributes
    return [
        pa.ExtensionArray.from_storage(pa.uuid(), links.read_id("trace_id", "traceId", _TRACE_ID_BYTES, optional=True)),
        _read_big_endian(links.read_id("span_id", "spanId", _ID_BYTES, optional=True)),
        links.read_text("trace_state", "traceState"),
        links.rows.field("flags"),
        *links.read_attributes(),
    ]


def _read_list(
    rows: _MessageRows, name: str, item: pa.StructType, read: Callable[[_MessageRows], list[pa.Array]]
) -> pa.ListArray:
    inner, offsets = rows.read_nested(name)
    # most spans have none, and reading zero rows takes as many calls as reading many
    columns = read(inner) if len(inner.rows) else [pa.nulls(0, field.type) for field in item]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=list(item)))


def _read_big_endian(ids: pa.FixedSizeBinaryArray) -> pa.UInt64Array:
    if ids.offset:
        ids = pa.concat_arrays([ids])
    numbers = array("Q", b"")
    numbers.frombytes(memoryview(ids.buffers()[1])[: len(ids) * _ID_BYTES])
    if sys.byteorder == "little":
        numbers.byteswap()
    return pa.UInt64Array.from_buffers(pa.uint64(), len(ids), [ids.buffers()[0], pa.py_buffer(numbers)])
