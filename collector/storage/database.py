"""Opening of the database file: names the process that holds it, and repairs a log with a damaged end."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from spanproof.collector.storage.schema import prepare_schema
from spanproof.collector.user_errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Size of the write-ahead log at which DuckDB moves it into the file. Appends wait meanwhile, and each checkpoint
# writes the last row group again, so rare checkpoints are cheap; but the content of the log is held in memory.
_CHECKPOINT_THRESHOLD = "256MB"
# A commit of at least this many rows goes directly into the file, compressed, and hardly uses the log. With DuckDB's
# default of 122,880, every commit would go through the log, and be read, compressed and written again later.
_ROW_GROUP_SIZE = 8192
# Row groups that such commits leave half full are not merged, because that would write them twice; they are merged
# after deletions.
_VACUUM_TASKS_OFF, _VACUUM_TASKS_ON = 0, 20
# Memory limit of DuckDB, including its cache of the file; larger operations use temporary files beside the database.
_MEMORY_LIMIT = "512MB"
# the name of the database within DuckDB; every connection must `USE` it, as `_attach` does
_DATABASE_NAME = "store"
_LOCK_HOLDER = re.compile(r"\(PID (\d+)\)")
_CORRUPT_WAL = re.compile(r"Corrupt WAL file: entry at byte position (\d+)")
_log = logging.getLogger(__name__)


def open_database(path: str, settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    """Open the database at `path`, migrated to the current schema. Raise StoreError."""
    connection = _connect(path, settings)
    try:
        prepare_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def make_cursor(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Return a new connection to the database that `open_database` opened."""
    cursor = connection.cursor()
    cursor.execute(f"USE {_DATABASE_NAME}")
    return cursor


def is_database_invalidated(error: duckdb.Error) -> bool:
    """Return whether DuckDB has invalidated the database, so that it must be opened again."""
    return isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error)


def checkpoint(connection: duckdb.DuckDBPyConnection) -> None:
    """Move the log into the file and merge row groups that deletions emptied; requires that no write is active."""
    connection.execute(f"SET GLOBAL max_vacuum_tasks = {_VACUUM_TASKS_ON}")
    try:
        connection.execute(f"CHECKPOINT {_DATABASE_NAME}")
    finally:
        connection.execute(f"SET GLOBAL max_vacuum_tasks = {_VACUUM_TASKS_OFF}")


def evict_cache(connection: duckdb.DuckDBPyConnection) -> None:
    """Evict DuckDB's cache of the file.

    When its memory is full, DuckDB evicts pages for each batch, and each time returns all free memory of malloc to the
    system; the next batch then pays in page faults. Rare evictions of the whole cache cost almost nothing.
    """
    # DuckDB cannot reach a limit of one byte, so it evicts all unpinned pages, then rejects the limit and keeps the old
    # one. Any other error is harmless, because nothing was changed.
    with suppress(duckdb.Error):
        connection.execute("SET GLOBAL memory_limit = '1B'")


def _connect(path: str, settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    try:
        return _attach(path, settings)
    except duckdb.Error as error:
        match = _CORRUPT_WAL.search(str(error))
        if not match:
            raise StoreError(_explain_open_failure(path, str(error))) from error
        _truncate_wal(Path(f"{path}.wal"), int(match[1]))
    try:
        return _attach(path, settings)
    except duckdb.Error as error:
        raise StoreError(_explain_open_failure(path, str(error))) from error


def _attach(path: str, settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "checkpoint_threshold": _CHECKPOINT_THRESHOLD,
        "memory_limit": _MEMORY_LIMIT,
        "max_vacuum_tasks": _VACUUM_TASKS_OFF,
        # derived rows need not be in the order of the spans; preserving it would use only one thread
        "preserve_insertion_order": False,
        # an ASOF join never compares all pairs of rows, however few rows are expected
        "asof_loop_join_threshold": 0,
        "arrow_lossless_conversion": True,  # a UUID is 16 bytes in Arrow, not text
        **settings,
    }
    connection = duckdb.connect(config=config)
    try:
        quoted = path.replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS {_DATABASE_NAME} (ROW_GROUP_SIZE {_ROW_GROUP_SIZE})")
        connection.execute(f"USE {_DATABASE_NAME}")
    except BaseException:
        connection.close()
        raise
    return connection


def _truncate_wal(wal: Path, valid_bytes: int) -> None:
    """Truncate the log at its damage, as after an interrupted write; keep a copy of it."""
    copy = wal.with_name(f"{wal.name}.damaged-{time.time_ns()}")
    shutil.copyfile(wal, copy)
    size = wal.stat().st_size
    os.truncate(wal, valid_bytes)
    _log.warning(
        "%s is damaged at byte %d of %d; it is read up to there; a copy is kept as %s", wal, valid_bytes, size, copy
    )


def _explain_open_failure(path: str, error: str) -> str:
    if "Could not set lock" in error:
        holder = _LOCK_HOLDER.search(error)
        by = f"process {holder[1]}" if holder else "another process"
        return f"{path} is in use by {by}; stop it or name another file"
    if "already attached" in error:
        return f"{path} is already in use by this process"
    if "not a valid DuckDB database" in error:
        return f"{path} is not a DuckDB database; name another file"
    return f"{path} cannot be opened: {error.splitlines()[0]}"
