"""Opening and reopening of the database file: names the process that holds it, and repairs a damaged log."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from spanproof.collector.storage.schema import IN_MEMORY_PATH, prepare_schema
from spanproof.collector.user_errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
# These errors invalidate the database, or mean that it has no room: the next request would fail, too.
_UNAVAILABLE_ERRORS: Final = (
    duckdb.FatalException,
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.ConnectionException,
)
_REOPEN_INTERVAL_S: Final = 1.0


class StoreConnection:
    """The connection of a store: one for the writer, and cursors for readers.

    `lock` serializes writing and reopening. `on_open` is called each time the database has been opened.
    """

    def __init__(self, path: str, settings: Mapping[str, str]) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._settings = settings
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._on_open: Callable[[], None] = lambda: None
        self._is_closed = False
        self._is_unavailable = True
        self._last_reopen_at = 0.0

    @property
    def is_in_memory(self) -> bool:
        """Whether the store has no file."""
        return self.path == IN_MEMORY_PATH

    def open(self, on_open: Callable[[], None]) -> None:
        """Open the database; `on_open` also runs after each reopening. Raises StoreError."""
        self._on_open = on_open
        self._open()

    def _open(self) -> None:
        self._is_unavailable = True
        self._connection = open_database(self.path, self._settings)
        self.writer = make_cursor(self._connection)
        self._on_open()
        self._is_unavailable = False

    def reopen_if_invalidated(self) -> None:
        """Reopen the database after an error that has invalidated it, such as a full disk. Raises StoreUnavailable."""
        if self._is_closed or not self._is_unavailable or self.is_in_memory:
            return
        if time.monotonic() - self._last_reopen_at < _REOPEN_INTERVAL_S:
            raise StoreUnavailable(f"{self.path} is out of order; it will be reopened in a moment")
        self._last_reopen_at = time.monotonic()
        # DuckDB releases the broken database when the last connection to it is closed.
        for connection in (self.writer, self._connection, *self._cursors):
            with suppress(duckdb.Error):
                connection.close()
        try:
            self._open()
        except (StoreError, duckdb.Error) as error:
            raise StoreUnavailable(f"{self.path} is out of order: {error}") from error
        _log.warning("%s was reopened", self.path)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for one thread. Raises StoreError, StoreUnavailable."""
        if self._is_unavailable:
            with self.lock:
                self.reopen_if_invalidated()
        try:
            cursor = make_cursor(self._connection)
        except duckdb.ConnectionException as error:
            raise StoreError("the store is closed") from error
        except duckdb.Error as error:
            self._is_unavailable = is_database_invalidated(error)  # the next call reopens the database
            raise StoreUnavailable(f"{self.path} is out of order: {error}") from error
        self._cursors.add(cursor)
        return cursor

    def explain_write_error(self, error: duckdb.Error) -> StoreError:
        """Return the error of a failed write; StoreUnavailable if later writes would fail, too."""
        message = f"the spans could not be stored: {error}"
        if isinstance(error, _UNAVAILABLE_ERRORS):
            self._is_unavailable = is_database_invalidated(error)
            return StoreUnavailable(message)
        return StoreError(message)

    def close(self) -> None:
        """Close the database after the write in progress."""
        with self.lock:
            self._is_closed = True
            self.writer.close()
            self._connection.close()


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
