"""A repeated field of many messages as one column of rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


class FlattenedList:
    """The rows of a list column, laid end to end, and which list each is from."""

    def __init__(self, lists: pa.ListArray) -> None:
        self.rows: pa.StructArray = lists.flatten()
        self.parents: pa.Int64Array = pc.list_parent_indices(lists)
        # where each list begins in `rows`, also where the column is a slice of another
        first = lists.offsets[0]
        self.offsets: pa.Int32Array = lists.offsets if first.as_py() == 0 else pc.subtract(lists.offsets, first)

    def find_parent(self, row: int) -> tuple[int, int]:
        """Say which list a row is from, and at which place in it the row stands."""
        parent: int = self.parents[row].as_py()
        return parent, row - self.offsets[parent].as_py()
