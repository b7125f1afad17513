"""A repeated field of many messages, as one column of rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


class FlattenedList:
    """The rows of a list column, concatenated, and the list of each row."""

    def __init__(self, lists: pa.ListArray) -> None:
        self.rows: pa.StructArray = lists.flatten()
        self.parents: pa.Int64Array = pc.list_parent_indices(lists)
        # where each list begins in `rows`, even if the column is a slice of another one
        first = lists.offsets[0]
        self.offsets: pa.Int32Array = lists.offsets if first.as_py() == 0 else pc.subtract(lists.offsets, first)

    def find_parent(self, row: int) -> tuple[int, int]:
        """Return the list of a row, and the index of the row in it."""
        parent: int = self.parents[row].as_py()
        return parent, row - self.offsets[parent].as_py()
