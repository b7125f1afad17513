"""What matters of the attributes of spans, by the names of `semconv.FACTS`."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.otlp import semantic_conventions as semconv

_INT32 = range(-(2**31), 2**31)


class HttpOutcome(IntEnum):
    """What an HTTP status says of a try."""

    OTHER = 0
    SERVER_ERROR = 1  # 500 and above
    RETRYABLE = 2  # 408, 425, 429
    REDIRECT_OR_CHALLENGE = (
        3  # a redirect, or a request for credentials: answered by another request, not by another try
    )


class ExtractedAttributes:
    """The texts of some attributes, one of each for every span; null where it has none."""

    def __init__(self, keys: pa.ListArray, texts: pa.ListArray) -> None:
        self._span_count = len(keys)
        self._texts = texts.flatten()
        self._span_rows = pc.list_parent_indices(keys).to_numpy()
        encoded = keys.flatten().dictionary_encode()
        self._index_by_key = {name: number for number, name in enumerate(encoded.dictionary.to_pylist())}
        self._key_indices = encoded.indices.to_numpy()

    def read(self, name: str) -> pa.Array:
        """Return the texts of a fact; of several spellings of its attribute, the first counts."""
        spellings = semconv.list_spellings(semconv.EXTRACTED_ATTRIBUTES[name])
        if self._index_by_key.keys().isdisjoint(spellings):
            return pa.nulls(self._span_count, self._texts.type)
        places = np.full(self._span_count, -1)
        for spelling in reversed(spellings):
            found = self._find_positions(spelling)
            places[self._span_rows[found]] = found
        return self._texts.take(pa.array(places, mask=places < 0))

    def read_int(self, name: str) -> pa.Array:
        """Return a fact as a whole number, where it is one."""
        return map_distinct_texts(self.read(name), _parse_int32, pa.int32())

    def has_any(self, *names: str) -> npt.NDArray[np.bool_]:
        """Tell which spans have any of these facts."""
        found = np.zeros(self._span_count, np.bool_)
        for fact in names:
            for spelling in semconv.list_spellings(semconv.EXTRACTED_ATTRIBUTES[fact]):
                found[self._span_rows[self._find_positions(spelling)]] = True
        return found

    def _find_positions(self, name: str) -> npt.NDArray[np.int64]:
        if name not in self._index_by_key:
            return np.array([], np.int64)
        return np.flatnonzero(self._key_indices == self._index_by_key[name])


def map_distinct_texts(texts: pa.Array, read: Callable[[str], int | None], type_: pa.DataType) -> pa.Array:
    """Return the numbers that `read` makes of texts, each text once."""
    encoded = texts.dictionary_encode()
    numbers = pa.array([read(text) for text in encoded.dictionary.to_pylist()], type_)
    return numbers.take(encoded.indices)


def classify_http_status(http_status: str) -> int:
    """Read what an HTTP status says, as an `Answer`."""
    if (_parse_int32(http_status) or 0) >= 500:
        return HttpOutcome.SERVER_ERROR
    if http_status in ("408", "425", "429"):
        return HttpOutcome.RETRYABLE
    if http_status in ("401", "407") or (len(http_status) == 3 and http_status.startswith("3")):
        return HttpOutcome.REDIRECT_OR_CHALLENGE
    return HttpOutcome.OTHER


def _parse_int32(text: str) -> int | None:
    try:
        number = round(float(text))
    except (ValueError, OverflowError):  # no number, or none that a whole one is near
        return None
    return number if number in _INT32 else None
