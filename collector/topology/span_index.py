"""Index of spans by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.storage.arrow_columns import MISSING_ROW, IntArray, to_bool_array, to_int_array

if TYPE_CHECKING:
    import numpy.typing as npt


class SpanIndex:
    """Index of span rows by trace id and span id."""

    def __init__(self, trace_ids: pa.Array, span_ids: pa.Array) -> None:
        self._trace_ids = trace_ids.storage.dictionary_encode()
        self._span_ids = span_ids.dictionary_encode()
        self.trace_indices = to_int_array(self._trace_ids.indices)
        self._packed_ids = pa.array(_pack_ids(self.trace_indices, self._span_ids.indices.to_numpy()))
        self.first_rows = to_int_array(pc.index_in(self._packed_ids, self._packed_ids))

    @property
    def trace_ids(self) -> pa.Array:
        """Return the id of each trace, in the order of their numbers."""
        return pa.ExtensionArray.from_storage(pa.uuid(), self._trace_ids.dictionary)

    @cached_property
    def rows_with_shared_ids(self) -> Mapping[int, list[int]]:
        """Return the rows that share their ids with others, by the first of these rows."""
        others = np.flatnonzero(self.first_rows != np.arange(len(self.first_rows)))
        rows_by_first: dict[int, list[int]] = {}
        for first, other in zip(self.first_rows[others].tolist(), others.tolist(), strict=True):
            rows_by_first.setdefault(first, [first]).append(other)
        return rows_by_first

    def find_first(self, traces: IntArray, span_ids: pa.Array) -> IntArray:
        """Return the first row with each trace number and span id."""
        numbers = pc.index_in(span_ids, self._span_ids.dictionary)
        packed_ids = pa.array(_pack_ids(traces, numbers.fill_null(0).to_numpy()), mask=to_bool_array(numbers.is_null()))
        rows = pc.index_in(packed_ids, self._packed_ids, skip_nulls=True)
        return to_int_array(rows)

    def find_all(self, trace_ids: pa.Array, span_ids: pa.Array) -> list[list[int]]:
        """Return all rows with each trace id and span id."""
        numbers = to_int_array(pc.index_in(trace_ids.storage, self._trace_ids.dictionary))
        firsts = self.find_first(numbers, span_ids)
        return [
            [] if first == MISSING_ROW else self.rows_with_shared_ids.get(first, [first]) for first in firsts.tolist()
        ]


class EntryLinks(Struct, frozen=True):
    """Links of entry spans: the row of each span, and the rows that it links to."""

    rows: IntArray
    targets: list[list[int]]


NO_ENTRY_LINKS: Final = EntryLinks(np.array([], np.int64), [])


def _pack_ids(traces: IntArray, spans: npt.NDArray[np.integer]) -> IntArray:
    """Pack two 32-bit numbers into one."""
    return traces << 32 | spans
