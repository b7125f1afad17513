"""Columns as DuckDB hands them out in Arrow, and as numpy reckons with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

MISSING_ROW = -1  # the row of what is not here


def fetch_table(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, object] | None = None,
    rows: pa.Table | None = None,
) -> pa.Table:
    """Return what a query finds, each column in one piece. The query may take from `rows`."""
    found = connection.sql(sql, params=parameters).to_arrow_table().combine_chunks()
    for place, column in enumerate(found.schema):
        # a byte each, so that DuckDB need not pack them; nothing of Arrow's computes with these
        if column.type == pa.bool8():
            found = found.set_column(place, column.name, found[place].cast(pa.bool_()))
    return found


def execute_with_rows(connection: duckdb.DuckDBPyConnection, sql: str, rows: pa.Table) -> None:
    """Execute SQL that takes from `rows`, which DuckDB finds by this Python name."""
    connection.execute(sql)


def get_single_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as the one piece that it is in, without copying it."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def to_bool_array(values: pa.Array) -> BoolArray:
    """Return truths as numpy has them; what is unknown is not so."""
    found: BoolArray = _fill_nulls(values, False).to_numpy(zero_copy_only=False)
    return found


def to_int_array(values: pa.Array) -> IntArray:
    """Return numbers as numpy has them; what is unknown is `NOWHERE`."""
    found: IntArray = _fill_nulls(values, MISSING_ROW).to_numpy().astype(np.int64, copy=False)
    return found


def _fill_nulls(values: pa.Array, value: object) -> pa.Array:
    return values.fill_null(value) if values.null_count else values
