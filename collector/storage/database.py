"""Opens the database file of a store: says who holds it, and mends a log whose end was damaged."""

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

# DuckDB moves what stands in its write-ahead log into the file at this size of the log. Appends wait
# meanwhile, and each time it writes the last row group anew, so seldom is cheap; but memory holds what is in the log.
_CHECKPOINT_THRESHOLD = "256MB"
# A commit of at least this many rows goes straight into the file, compressed, and costs the log next to nothing.
# DuckDB's own 122,880 would send every commit through the log, to be read, compressed and written anew later.
_ROW_GROUP_SIZE = 8192
# The row groups that such commits leave half full stay so, as to merge them would be to write them twice; but not
# for ever, where rows were deleted.
_VACUUM_TASKS_OFF, _VACUUM_TASKS_ON = 0, 20
# What DuckDB may hold, its cache of the file included; what needs more goes through files beside the database.
_MEMORY_LIMIT = "512MB"
# the name of the database within DuckDB; what reads it must `USE` it, as `attach` does
_DATABASE_NAME = "store"
_LOCK_HOLDER = re.compile(r"\(PID (\d+)\)")
_CORRUPT_WAL = re.compile(r"Corrupt WAL file: entry at byte position (\d+)")
_log = logging.getLogger(__name__)


def open_database(path: str, settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    """Open the database at `path`, with today's schema. Raises StoreError."""
    connection = _connect(path, settings)
    try:
        prepare_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def make_cursor(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Make a connection of its own to the database that `open_database` opened."""
    cursor = connection.cursor()
    cursor.execute(f"USE {_DATABASE_NAME}")
    return cursor


def is_database_invalidated(error: duckdb.Error) -> bool:
    """Tell whether DuckDB has given the database up; it must be opened again, then."""
    return isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error)


def checkpoint(connection: duckdb.DuckDBPyConnection) -> None:
    """Move the log into the file and merge row groups that deletions have emptied; nothing may be written meanwhile."""
    connection.execute(f"SET GLOBAL max_vacuum_tasks = {_VACUUM_TASKS_ON}")
    try:
        connection.execute(f"CHECKPOINT {_DATABASE_NAME}")
    finally:
        connection.execute(f"SET GLOBAL max_vacuum_tasks = {_VACUUM_TASKS_OFF}")


def evict_cache(connection: duckdb.DuckDBPyConnection) -> None:
    """Have DuckDB let go of what it caches of the file.

    Once its memory fills, it makes room for each batch anew, and each time gives back to the system all that malloc
    holds free in any thread; the next batch pays for that in page faults. All at once and seldom costs next to nothing.
    """
    # Nothing can keep to a limit of one byte, so it is refused and stays what it was; but by then all that nobody holds
    # is gone. What goes wrong beyond that harms no one: nothing was changed.
    with suppress(duckdb.Error):
        connection.execute("SET GLOBAL memory_limit = '1B'")


def _connect(path: str, settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    try:
        return _attach(path, settings)
    except duckdb.Error as error:
        damage = _CORRUPT_WAL.search(str(error))
        if not damage:
            raise StoreError(_explain_open_failure(path, str(error))) from error
        _truncate_wal(Path(f"{path}.wal"), int(damage[1]))
    try:
        return _attach(path, settings)
    except duckdb.Error as error:
        raise StoreError(_explain_open_failure(path, str(error))) from error


def _attach(path: str, settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "checkpoint_threshold": _CHECKPOINT_THRESHOLD,
        "memory_limit": _MEMORY_LIMIT,
        "max_vacuum_tasks": _VACUUM_TASKS_OFF,
        # what is derived need not stand in the order of the spans; to keep it takes all but one thread out of the work
        "preserve_insertion_order": False,
        "arrow_lossless_conversion": True,  # an id is 16 bytes there, too, and no text
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
    """Cut the log where it is damaged, as a log that was torn while being written is; keep a copy of it."""
    copy = wal.with_name(f"{wal.name}.damaged-{time.time_ns()}")
    shutil.copyfile(wal, copy)
    size = wal.stat().st_size
    os.truncate(wal, valid_bytes)
    _log.warning("%s is damaged at byte %d of %d; it is read up to there, and kept as %s", wal, valid_bytes, size, copy)


def _explain_open_failure(path: str, error: str) -> str:
    if "Could not set lock" in error:
        holder = _LOCK_HOLDER.search(error)
        by = f"process {holder[1]}" if holder else "another process"
        return f"{path} is in use by {by}; stop it or name another file"
    if "already attached" in error:
        return f"{path} is in use by this process already"
    if "not a valid DuckDB database" in error:
        return f"{path} is no DuckDB database; name another file"
    return f"{path} cannot be opened: {error.splitlines()[0]}"
