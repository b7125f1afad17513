"""Attributes that derivation reads, by the names of `semantic_conventions.EXTRACTED_ATTRIBUTES`."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.otlp.attribute_encoding import KIND_MARKER
from spanproof.collector.otlp.retry_counters import RETRY_COUNTERS
from spanproof.collector.storage.arrow_columns import BoolArray, IntArray

_INT32 = range(-(2**31), 2**31)
_ONE, _ZERO = (pa.scalar(number, pa.int32()) for number in (1, 0))


class ExtractedAttributes:
    """Texts of some attributes, one column per attribute with a value per span; null if the span has none."""

    def __init__(self, keys: pa.ListArray, texts: pa.ListArray) -> None:
        self.span_count = len(keys)
        self._texts = texts.flatten()
        self._span_rows = pc.list_parent_indices(keys).to_numpy()
        encoded = keys.flatten().dictionary_encode()
        self._has_text = self._texts.is_valid().to_numpy(zero_copy_only=False) if self._texts.null_count else None
        self._index_by_key = {name: number for number, name in enumerate(encoded.dictionary.to_pylist())}
        self._key_indices = encoded.indices.to_numpy()

    def read(self, name: str) -> pa.Array:
        """Return the texts of an extracted attribute; of several spellings, the first one counts."""
        return self.read_key(*semconv.list_spellings(semconv.EXTRACTED_ATTRIBUTES[name]))

    def read_key(self, *spellings: str) -> pa.Array:
        """Return the texts of the first of these attributes that a span has."""
        if self._index_by_key.keys().isdisjoint(spellings):
            return pa.nulls(self.span_count, self._texts.type)
        positions = np.full(self.span_count, -1)
        for spelling in reversed(spellings):
            spelling_positions = self._find_positions(spelling)
            positions[self._span_rows[spelling_positions]] = spelling_positions
        return self._texts.take(pa.array(positions, mask=positions < 0))

    def read_int(self, name: str) -> pa.Array:
        """Return an extracted attribute as 32-bit integers; null where the text is not one."""
        return map_distinct_texts(self.read(name), parse_int32, pa.int32())

    def read_attempts_before(self) -> tuple[pa.Array, pa.Array]:
        """Return, for each span, how many attempts its counter says came before, and whether that includes redirects.

        Null without a counter. Of several counters, the first of the table that the span has decides.
        """
        before, counts_redirects = pa.nulls(self.span_count, pa.int32()), pa.nulls(self.span_count, pa.bool_())
        for name, counted in RETRY_COUNTERS.items():
            if not self.has_key(name):
                continue
            numbers = map_distinct_texts(self.read_key(name), _parse_counter, pa.int32())
            if counted == "attempts":
                numbers = pc.subtract(numbers, _ONE)
            numbers = pc.if_else(pc.less(numbers, _ZERO), _ZERO, numbers)
            is_new = pc.and_(before.is_null(), numbers.is_valid())
            counts_redirects = pc.if_else(is_new, pa.scalar(counted == "resends"), counts_redirects)
            before = pc.coalesce(before, numbers)
        return before, counts_redirects

    def has_key(self, name: str) -> bool:
        """Return whether any span has this attribute."""
        return name in self._index_by_key

    def has_any(self, *names: str) -> BoolArray:
        """Return which spans have any of these extracted attributes."""
        mask = np.zeros(self.span_count, np.bool_)
        for name in names:
            for spelling in semconv.list_spellings(semconv.EXTRACTED_ATTRIBUTES[name]):
                mask[self._span_rows[self._find_positions(spelling)]] = True
        return mask

    def _find_positions(self, name: str) -> IntArray:
        if name not in self._index_by_key:
            return np.array([], np.int64)
        is_found = self._key_indices == self._index_by_key[name]
        return np.flatnonzero(is_found if self._has_text is None else is_found & self._has_text)


def map_distinct_texts(texts: pa.Array, read: Callable[[str], int | None], type_: pa.DataType) -> pa.Array:
    """Return the numbers that `read` returns for the texts; `read` is called once per distinct text."""
    encoded = texts.dictionary_encode()
    numbers = pa.array([read(text) for text in encoded.dictionary.to_pylist()], type_)
    return numbers.take(encoded.indices)


def _parse_counter(text: str) -> int | None:
    """Return the number in a text, or in an array of one text: the conventions record metadata as arrays."""
    if text.startswith(f"{KIND_MARKER}a"):
        values = json.loads(text[2:])
        text = str(next(iter(values[0].values()), "")) if len(values) == 1 else ""
    return parse_int32(text)


def parse_int32(text: str) -> int | None:
    """Return the number that a text holds, or None if it is not a whole number of 32 bits."""
    try:
        number = round(float(text))
    except (ValueError, OverflowError):  # not a number, or NaN or infinite
        return None
    return number if number in _INT32 else None
