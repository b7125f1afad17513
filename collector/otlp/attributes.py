"""Attribute lists as columns: keys, texts, and one letter per attribute for its type (see sql/schema.sql).

An attribute without a value, or with the value NaN, has no text: for claims, it is missing.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.common.v1.common_pb2 import ArrayValue, KeyValueList

from spanproof.collector.otlp.attribute_encoding import ATTRIBUTES_TYPE, KIND_MARKER
from spanproof.collector.otlp.json_mapping import InvalidJson, dump_json, render_message
from spanproof.collector.otlp.rejections import Rejection, RejectionReason
from spanproof.collector.otlp.repeated_fields import FlattenedList

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanproof.collector.otlp.redaction import Redaction

# A typed scalar: for a Python value, pyarrow tries to import optional libraries at every call.
_NO_TEXT = pa.scalar(None, pa.string())

_SCALAR_FIELDS = (("int_value", "i"), ("bool_value", "b"), ("double_value", "d"))
# Maximum depth at which the content of a nested value begins: request, resource spans, scope spans, span, event,
# attribute, value, content.
_NESTED_DEPTH = 8


class AttributeColumns(Struct, frozen=True):
    """Keys and texts, and one string of kind letters, per list; `rejections` has the lists that cannot be stored."""

    lists: pa.StructArray
    kinds: pa.StringArray
    rejections: dict[int, Rejection]


def read_attributes(lists: pa.ListArray, redaction: Redaction) -> AttributeColumns:
    """Read a column of `repeated KeyValue` and apply the redaction."""
    items = FlattenedList(lists)
    offsets = items.offsets
    keys, bad_keys = decode_utf8(items.rows.field("key"))
    texts, kinds, bad_values = _read_values(items.rows.field("value"))

    rejections: dict[int, Rejection] = {}
    for item, problem in bad_values.items():
        rejections[items.parents[item].as_py()] = problem.with_prefix(f"attributes[{keys[item].as_py()!r}]: ")
    for item in bad_keys:
        rejections[items.parents[item].as_py()] = Rejection(
            RejectionReason.TEXT, "attributes: a key is not valid UTF-8"
        )

    kept = _mark_last_of_each_key(items.parents, keys)
    if kept is not None:
        # the number of kept items before each item maps old offsets to new ones
        kept_counts = pc.cumulative_sum(kept.cast(pa.int32()))
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), kept_counts]).take(offsets)
        keys, texts, kinds = (column.filter(kept) for column in (keys, texts, kinds))
    if redaction:
        texts, kinds = redaction.redact_attributes(keys, texts, kinds)
    return AttributeColumns(
        lists=pa.StructArray.from_arrays(
            [pa.ListArray.from_arrays(offsets, column) for column in (keys, texts)], fields=list(ATTRIBUTES_TYPE)
        ),
        # one byte per attribute: the list offsets are the string offsets
        kinds=pa.StringArray.from_buffers(len(lists), _slice_values_buffer(offsets), _slice_values_buffer(kinds)),
        rejections=rejections,
    )


def decode_utf8(values: pa.BinaryArray) -> tuple[pa.StringArray, list[int]]:
    """Decode bytes as UTF-8; return the texts and the rows that are invalid, which get an empty text."""
    try:
        return values.cast(pa.string()), []
    except pa.ArrowInvalid:
        bad: list[int] = []
        texts: list[str | None] = []
        for index, value in enumerate(values.to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                bad.append(index)
                texts.append("")
        return pa.array(texts, pa.string()), bad


def _read_values(values: pa.StructArray) -> tuple[pa.StringArray, pa.UInt8Array, dict[int, Rejection]]:
    # unlike field, flatten yields null where the whole value is null
    columns = dict(zip((field.name for field in values.type), values.flatten(), strict=True))
    strings, bad = decode_utf8(columns["string_value"])
    rejections = dict.fromkeys(bad, Rejection(RejectionReason.TEXT, "not valid UTF-8"))
    marked = pc.starts_with(strings, KIND_MARKER)
    if pc.any(marked).as_py():
        strings = pc.if_else(marked, pc.binary_join_element_wise(f"{KIND_MARKER}s", strings, ""), strings)
    kinds = pc.if_else(strings.is_valid(), _make_kind_scalar("s"), _make_kind_scalar("n"))
    all_texts = strings
    for name, letter in _SCALAR_FIELDS:
        column = columns[name]
        if column.null_count < len(column):
            kinds = pc.if_else(column.is_valid(), _make_kind_scalar(letter), kinds)
            all_texts = pc.if_else(column.is_valid(), _render_scalars(column), all_texts)
    for name, letter, render in _ENCODED_FIELDS:
        column = columns[name]
        if column.null_count < len(column):
            kinds = pc.if_else(column.is_valid(), _make_kind_scalar(letter), kinds)
            texts: list[str | None] = []
            for index, value in enumerate(column.to_pylist()):
                try:
                    texts.append(None if value is None else f"{KIND_MARKER}{letter}{render(value)}")
                except (DecodeError, InvalidJson):
                    rejections[index] = Rejection(
                        RejectionReason.MALFORMED, "malformed, not valid UTF-8 or nested too deeply"
                    )
                    texts.append("")
            # if a value is set twice, both the kind letter and the text come from the later field
            all_texts = pc.if_else(column.is_valid(), pa.array(texts, pa.string()), all_texts)
    return all_texts, kinds, rejections


def _render_scalars(column: pa.Array) -> pa.StringArray:
    """Return numbers or booleans as texts; a NaN is a missing value, and has none."""
    texts = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        is_nan = pc.is_nan(column)
        if pc.any(is_nan).as_py():
            texts = pc.if_else(is_nan, _NO_TEXT, texts)
    return texts


def _make_kind_scalar(letter: str) -> pa.UInt8Scalar:
    return pa.scalar(ord(letter), pa.uint8())


def _render_nested(content: bytes, message: ArrayValue | KeyValueList) -> str:
    message.ParseFromString(content)
    return dump_json(render_message(message, _NESTED_DEPTH).get("values", []))


_ENCODED_FIELDS: tuple[tuple[str, str, Callable[[bytes], str]], ...] = (
    ("bytes_value", "y", lambda content: base64.b64encode(content).decode()),
    ("array_value", "a", lambda content: _render_nested(content, ArrayValue())),
    ("kvlist_value", "k", lambda content: _render_nested(content, KeyValueList())),
)


def _mark_last_of_each_key(lists: pa.Int64Array, keys: pa.StringArray) -> pa.BooleanArray | None:
    """Mark the attributes to keep if a list has a key twice, which OTLP forbids; return None if no list has."""
    encoded = keys.dictionary_encode()
    groups = lists.to_numpy() * len(encoded.dictionary) + encoded.indices.to_numpy()
    ordered = np.sort(groups, kind="stable")  # the groups are nearly sorted, which a stable sort exploits
    if not np.any(ordered[1:] == ordered[:-1]):
        return None
    items = pa.arange(0, len(keys))
    last = pa.table({"group": groups, "item": items}).group_by("group").aggregate([("item", "max")])
    return pc.is_in(items, value_set=last["item_max"].combine_chunks())


def _slice_values_buffer(array: pa.Array) -> pa.Buffer:
    """Return the values buffer of a fixed-width column, without the values before its offset."""
    width: int = array.type.byte_width
    return array.buffers()[1].slice(array.offset * width, len(array) * width)
