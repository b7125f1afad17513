"""What matters of the attributes of spans, by the names of `semconv.FACTS`."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector import semconv

_INT32 = range(-(2**31), 2**31)


class Answer(IntEnum):
    """What an HTTP status says of a try."""

    PLAIN = 0
    FAILED = 1  # 500 and above
    TRY_AGAIN = 2  # 408, 425, 429
    TRY_OTHERWISE = 3  # a redirect, or a request for credentials: answered by another request, not by another try


class Facts:
    """The texts of some attributes, one of each for every span; null where it has none."""

    def __init__(self, keys: pa.ListArray, texts: pa.ListArray) -> None:
        self._count = len(keys)
        self._texts = texts.flatten()
        self._spans = pc.list_parent_indices(keys).to_numpy()
        encoded = keys.flatten().dictionary_encode()
        self._names = {name: number for number, name in enumerate(encoded.dictionary.to_pylist())}
        self._numbers = encoded.indices.to_numpy()

    def read(self, fact: str) -> pa.Array:
        """Return the texts of a fact; of several spellings of its attribute, the first counts."""
        spellings = semconv.spellings(semconv.FACTS[fact])
        if self._names.keys().isdisjoint(spellings):
            return pa.nulls(self._count, self._texts.type)
        places = np.full(self._count, -1)
        for spelling in reversed(spellings):
            found = self._find(spelling)
            places[self._spans[found]] = found
        return self._texts.take(pa.array(places, mask=places < 0))

    def read_whole(self, fact: str) -> pa.Array:
        """Return a fact as a whole number, where it is one."""
        return convert(self.read(fact), _read_whole, pa.int32())

    def has(self, *facts: str) -> npt.NDArray[np.bool_]:
        """Tell which spans have any of these facts."""
        found = np.zeros(self._count, np.bool_)
        for fact in facts:
            for spelling in semconv.spellings(semconv.FACTS[fact]):
                found[self._spans[self._find(spelling)]] = True
        return found

    def _find(self, name: str) -> npt.NDArray[np.int64]:
        if name not in self._names:
            return np.array([], np.int64)
        return np.flatnonzero(self._numbers == self._names[name])


def convert(texts: pa.Array, read: Callable[[str], int | None], type_: pa.DataType) -> pa.Array:
    """Return the numbers that `read` makes of texts, each text once."""
    encoded = texts.dictionary_encode()
    numbers = pa.array([read(text) for text in encoded.dictionary.to_pylist()], type_)
    return numbers.take(encoded.indices)


def read_answer(http_status: str) -> int:
    """Read what an HTTP status says, as an `Answer`."""
    if (_read_whole(http_status) or 0) >= 500:
        return Answer.FAILED
    if http_status in ("408", "425", "429"):
        return Answer.TRY_AGAIN
    if http_status in ("401", "407") or (len(http_status) == 3 and http_status.startswith("3")):
        return Answer.TRY_OTHERWISE
    return Answer.PLAIN


def _read_whole(text: str) -> int | None:
    try:
        number = round(float(text))
    except (ValueError, OverflowError):  # no number, or none that a whole one is near
        return None
    return number if number in _INT32 else None
