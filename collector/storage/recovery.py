"""Recovery of the database: it is reopened after an error that invalidated it, such as a full disk."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import duckdb

from spanproof.collector.storage.database import is_database_invalidated, make_cursor, open_database
from spanproof.collector.storage.schema import IN_MEMORY_PATH
from spanproof.collector.user_errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# These errors invalidate the database, or mean that it has no room: the next request would fail, too.
_UNAVAILABLE_ERRORS: Final = (
    duckdb.FatalException,
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.ConnectionException,
)
_REOPEN_INTERVAL_S: Final = 1.0
_log = logging.getLogger(__name__)


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
