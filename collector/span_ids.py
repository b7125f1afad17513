"""How spans are found by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.columns import NOWHERE, Ints, as_bools, as_ints


class Ids:
    """Finds the rows of spans by trace and span id."""

    def __init__(self, trace_ids: pa.Array, span_ids: pa.Array) -> None:
        self._trace_ids = trace_ids.storage.dictionary_encode()
        self._span_ids = span_ids.dictionary_encode()
        self.traces = as_ints(self._trace_ids.indices)
        self._known = pa.array(_join(self.traces, self._span_ids.indices.to_numpy()))
        self.first = as_ints(pc.index_in(self._known, self._known))

    @property
    def trace_ids(self) -> pa.Array:
        """Return the id of each trace, in the order of their numbers."""
        return pa.ExtensionArray.from_storage(pa.uuid(), self._trace_ids.dictionary)

    @cached_property
    def shared(self) -> Mapping[int, list[int]]:
        """Return, by the first row with them, all rows that share their ids with others."""
        others = np.flatnonzero(self.first != np.arange(len(self.first)))
        found: dict[int, list[int]] = {}
        for first, other in zip(self.first[others].tolist(), others.tolist(), strict=True):
            found.setdefault(first, [first]).append(other)
        return found

    def find(self, traces: Ints, span_ids: pa.Array) -> Ints:
        """Return the first row with each trace (by number) and span id."""
        numbers = pc.index_in(span_ids, self._span_ids.dictionary)
        wanted = pa.array(_join(traces, numbers.fill_null(0).to_numpy()), mask=as_bools(numbers.is_null()))
        rows = pc.index_in(wanted, self._known, skip_nulls=True)
        return as_ints(rows)

    def find_all(self, trace_ids: pa.Array, span_ids: pa.Array) -> list[list[int]]:
        """Return all rows with each trace and span id."""
        numbers = as_ints(pc.index_in(trace_ids.storage, self._trace_ids.dictionary))
        firsts = self.find(numbers, span_ids)
        return [[] if first == NOWHERE else self.shared.get(first, [first]) for first in firsts.tolist()]


@dataclass(frozen=True, slots=True)
class Links:
    """What entry spans link to: which span, and the rows of those linked to."""

    rows: Ints
    targets: list[list[int]]


NO_LINKS: Final = Links(np.array([], np.int64), [])


def _join(traces: Ints, spans: npt.NDArray[np.integer]) -> Ints:
    """Make one number of two that have 32 bits each."""
    return traces << 32 | spans
