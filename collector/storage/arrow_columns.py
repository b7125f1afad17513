"""Conversions of columns between DuckDB, Arrow and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import duckdb
    import numpy.typing as npt

IntArray: TypeAlias = "npt.NDArray[np.int64]"
BoolArray: TypeAlias = "npt.NDArray[np.bool_]"

# DuckDB reads the chunks of a table in parallel, but a chunk in one thread; half of one of its row groups
_CHUNK_ROWS: Final = 61_440
MISSING_ROW = -1  # row of a span that is not present


def fetch_table(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, object] | None = None,
    rows: pa.Table | None = None,
) -> pa.Table:
    """Return the result of a query, each column in one chunk. The query may read from `rows`."""
    table = connection.sql(sql, params=parameters).to_arrow_table().combine_chunks()
    for index, column in enumerate(table.schema):
        # DuckDB returns booleans of one byte each, which Arrow's functions do not support
        if column.type == pa.bool8():
            table = table.set_column(index, column.name, table[index].cast(pa.bool_()))
    return table


def execute_with_rows(connection: duckdb.DuckDBPyConnection, sql: str, rows: pa.Table) -> None:
    """Execute SQL that reads from `rows`, which DuckDB finds by the name of this Python variable."""
    if len(rows) > _CHUNK_ROWS:
        rows = pa.Table.from_batches(rows.to_batches(_CHUNK_ROWS), rows.schema)
    connection.execute(sql)


def get_single_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return the only chunk of a column, without copying it."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def to_bool_array(values: pa.Array) -> BoolArray:
    """Return booleans as a numpy array; null becomes false."""
    array: BoolArray = _fill_nulls(values, False).to_numpy(zero_copy_only=False)
    return array


def to_int_array(values: pa.Array) -> IntArray:
    """Return integers as a numpy array; null becomes `MISSING_ROW`."""
    array: IntArray = _fill_nulls(values, MISSING_ROW).to_numpy().astype(np.int64, copy=False)
    return array


def _fill_nulls(values: pa.Array, value: object) -> pa.Array:
    return values.fill_null(value) if values.null_count else values


def find_distinct_rows(columns: Sequence[pa.Array]) -> pa.Array:
    """Return, for each distinct row of `columns`, the index of its first occurrence.

    Arrow's ``group_by`` would import its modules for datasets, which takes longer than most verdicts.
    """
    count = len(columns[0])
    numbers = np.zeros(count, np.int64)
    for column in columns:
        encoded = column.dictionary_encode("encode")
        numbers = numbers * len(encoded.dictionary) + encoded.indices.to_numpy()
        numbers = pa.array(numbers).dictionary_encode().indices.to_numpy().astype(np.int64)  # small again
    first_rows = np.empty(numbers.max(initial=-1) + 1, np.int64)
    first_rows[numbers[::-1]] = np.arange(count)[::-1]  # the last assignment holds
    return pa.array(first_rows)
