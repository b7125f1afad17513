"""The store: one DuckDB file (or memory) that holds the spans as they came, and what is derived from them."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.storage.arrow_columns import fetch_table
from spanproof.collector.storage.database import (
    checkpoint,
    evict_cache,
    is_database_invalidated,
    make_cursor,
    open_database,
)
from spanproof.collector.storage.schema import IN_MEMORY_PATH
from spanproof.collector.storage.telemetry import Telemetry
from spanproof.collector.user_errors import StoreError as StoreError
from spanproof.collector.user_errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from spanproof.collector.otlp.decoder import DecodedBatch

    CommitListener = Callable[["ArrivedSpans"], None]

_log = logging.getLogger(__name__)
# After these, the database is out of order, or has no room: the next request would fare no better.
_UNAVAILABLE_ERRORS = (
    duckdb.FatalException,
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.ConnectionException,
)
_REOPEN_INTERVAL_S = 1.0
# Compressed, they take a quarter of the memory that DuckDB may hold.
_CACHE_EVICTION_INTERVAL_SPANS = 1_000_000


@dataclass(frozen=True)
class ArrivedSpans:
    """What a commit has brought: `spans`, in the columns of their table. Ids of traces are 32 hexadecimal digits."""

    spans: pa.Table

    @cached_property
    def trace_ids(self) -> frozenset[str]:
        """Of which traces there are spans."""
        return _format_distinct_ids(self.spans["trace_id"].combine_chunks())

    @cached_property
    def services(self) -> frozenset[str]:
        """Which services have sent spans."""
        return frozenset(pc.unique(self.spans["service"]).to_pylist())

    @cached_property
    def linked_trace_ids(self) -> frozenset[str]:
        """To which traces some spans link."""
        return _format_distinct_ids(self.spans["links"].combine_chunks().flatten().field("trace_id"))

    @cached_property
    def attribute_names(self) -> frozenset[str]:
        """Which attributes some spans have."""
        keys = self.spans["attributes"].combine_chunks().field("keys")
        return frozenset(pc.unique(keys.flatten()).to_pylist())


class Store:
    """Spans in DuckDB. One thread at a time appends; any number read, each with its own `cursor()`.

    `lock` is for writers of derived tables, so that two do not derive the same trace at once. Appending does not
    take it: DuckDB lets writers of different tables go on side by side.
    """

    def __init__(self, path: str, settings: Mapping[str, str]) -> None:
        self.lock = threading.RLock()
        self.telemetry = Telemetry()
        self._path = path
        self._settings = settings
        self._append_lock = threading.RLock()
        self._listeners: list[CommitListener] = []
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._empty_tables: dict[str, pa.Table] = {}
        self._closed = False
        self._last_reopen_at = 0.0
        self._connect()

    @classmethod
    def open(cls, path: str | Path = IN_MEMORY_PATH, *, settings: Mapping[str, str] | None = None) -> Self:
        """Open the file at `path`, or a new store in memory; `settings` are DuckDB's."""
        return cls(str(path), settings or {})

    def _connect(self) -> None:
        self._is_unavailable = True
        connection = self._connection = open_database(self._path, self._settings)
        self._writer = make_cursor(connection)
        # above the last derived, too: the spans that had the keys in between may have been forgotten
        self._next_span_key = int(
            _fetch_value(connection, "SELECT greatest(max(span_key), (FROM derivation), 0) + 1 FROM spans")
        )
        self._known_keys = {
            table: {int(key) for (key,) in connection.execute(f"SELECT {table[:-1]}_key FROM {table}").fetchall()}  # noqa: S608 (fixed names)
            for table in ("resources", "scopes")
        }
        found = connection.execute("SELECT DISTINCT service FROM resources").fetchall()
        self._services = frozenset(str(service) for (service,) in found)
        self._drop_cache_at = self._next_span_key + _CACHE_EVICTION_INTERVAL_SPANS
        self._is_unavailable = False

    def _reopen_if_invalidated(self) -> None:
        """Open the database anew after an error that has put it out of order, such as a full disk."""
        if self._closed or not self._is_unavailable or self._path == IN_MEMORY_PATH:
            return
        if time.monotonic() - self._last_reopen_at < _REOPEN_INTERVAL_S:
            raise StoreUnavailable(f"{self._path} is out of order; it is opened again in a moment")
        self._last_reopen_at = time.monotonic()
        # DuckDB forgets the broken database with the last connection to it
        for connection in (self._writer, self._connection, *self._cursors):
            with suppress(duckdb.Error):
                connection.close()
        try:
            self._connect()
        except (StoreError, duckdb.Error) as error:
            raise StoreUnavailable(f"{self._path} is out of order: {error}") from error
        _log.warning("%s was opened again", self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def append(self, decoded: DecodedBatch) -> None:
        """Store decoded spans, with the resources and scopes not yet known, in one transaction."""
        count = len(decoded.spans)
        if not count:
            return
        with self._append_lock:
            self._reopen_if_invalidated()
            new = {
                "resources": self._filter_new_rows("resources", decoded.resources),
                "scopes": self._filter_new_rows("scopes", decoded.scopes),
                "spans": decoded.spans.append_column(
                    "span_key", pa.arange(self._next_span_key, self._next_span_key + count)
                ).append_column("arrived_ns", pa.repeat(pa.scalar(time.time_ns(), pa.int64()), count)),
            }
            with self.telemetry.measure_commit(count):
                self._insert_tables(new)
            self._next_span_key += count
            for table in ("resources", "scopes"):
                self._known_keys[table].update(new[table].column(0).to_pylist())
            self._services |= frozenset(new["resources"]["service"].to_pylist())
            self._evict_cache_if_due()
        self._notify_listeners(new["spans"])

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Make a connection of its own for one thread; close it after use."""
        if self._is_unavailable:
            with self._append_lock:
                self._reopen_if_invalidated()
        try:
            cursor = make_cursor(self._connection)
        except duckdb.ConnectionException as error:
            raise StoreError("the store is closed") from error
        except duckdb.Error as error:
            self._is_unavailable = is_database_invalidated(error)  # the next one finds it opened again
            raise StoreUnavailable(f"{self._path} is out of order: {error}") from error
        self._cursors.add(cursor)
        return cursor

    @property
    def last_span_key(self) -> int:
        """The key of the span that was committed last; 0 before the first."""
        return self._next_span_key - 1

    @property
    def services(self) -> frozenset[str]:
        """The services that have sent spans."""
        return self._services

    def read_empty_table(self, table: str) -> pa.Table:
        """Return a table as it is without rows."""
        if table not in self._empty_tables:
            with closing(self.cursor()) as cursor:
                self._empty_tables[table] = fetch_table(cursor, f"FROM {table} LIMIT 0")
        return self._empty_tables[table]

    def read_size_bytes(self) -> int:
        """Read how many bytes the file and its log take; a store in memory takes none."""
        return _read_file_size(self._path) + _read_file_size(f"{self._path}.wal")

    def read_used_bytes(self) -> int:
        """Read how many bytes of the file and its log are in use: what was forgotten leaves room in the file."""
        with closing(self.cursor()) as cursor:
            ((used,),) = cursor.execute(
                "SELECT block_size * used_blocks FROM pragma_database_size() WHERE database_name = current_database()"
            ).fetchall()
        return int(used) + _read_file_size(f"{self._path}.wal")

    def compact(self) -> None:
        """Move the log into the file, and give back the room of rows that are gone; appends wait meanwhile."""
        with self.lock, self._append_lock:
            for table in ("resources", "scopes"):
                gone = self._writer.execute(
                    f"DELETE FROM {table} WHERE {table[:-1]}_key NOT IN (SELECT {table[:-1]}_key FROM spans)"  # noqa: S608 (fixed names)
                    f" RETURNING {table[:-1]}_key"
                ).fetchall()
                self._known_keys[table].difference_update(int(key) for (key,) in gone)
            checkpoint(self._writer)

    def subscribe(self, listener: CommitListener) -> Callable[[], None]:
        """Call `listener` after each commit with what that has brought.

        It is called in the thread that appended. Returns what ends the subscription.
        """
        self._listeners = [*self._listeners, listener]

        def unsubscribe() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return unsubscribe

    def close(self) -> None:
        """Close the store, once no append is under way."""
        with self._append_lock:
            self._closed = True
            self._writer.close()
            self._connection.close()

    def _filter_new_rows(self, table: str, rows: pa.Table) -> pa.Table:
        keys = rows.column(0).to_pylist()
        return rows.filter(pa.array([key not in self._known_keys[table] for key in keys], pa.bool_()))

    def _evict_cache_if_due(self) -> None:
        if self._next_span_key < self._drop_cache_at or self._path == IN_MEMORY_PATH:
            return
        self._drop_cache_at = self._next_span_key + _CACHE_EVICTION_INTERVAL_SPANS
        evict_cache(self._writer)

    def _insert_tables(self, tables: dict[str, pa.Table]) -> None:
        try:
            self._writer.execute("BEGIN")
            try:
                for name, rows in tables.items():
                    if len(rows):
                        _insert_rows(self._writer, name, rows)
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.Error):  # a commit that fails has rolled back already
                    self._writer.execute("ROLLBACK")
                raise
        except _UNAVAILABLE_ERRORS as error:
            self._is_unavailable = is_database_invalidated(error)
            raise StoreUnavailable(f"the spans could not be stored: {error}") from error
        except duckdb.Error as error:
            raise StoreError(f"the spans could not be stored: {error}") from error

    def _notify_listeners(self, spans: pa.Table) -> None:
        listeners = self._listeners
        if not listeners:
            return
        arrived = ArrivedSpans(spans)
        for listener in listeners:
            try:
                listener(arrived)
            except Exception:  # what listens must not undo what is committed
                _log.exception("a listener of the store failed")


def _format_distinct_ids(ids: pa.ExtensionArray) -> frozenset[str]:
    return frozenset(trace_id.hex() for trace_id in pc.unique(ids.storage).to_pylist())


def _read_file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _insert_rows(connection: duckdb.DuckDBPyConnection, table: str, arrived: pa.Table) -> None:
    # DuckDB finds `arrived` by its Python name, at a third of what registering it costs
    connection.execute(f"INSERT INTO {table} BY NAME FROM arrived")


def _fetch_value(connection: duckdb.DuckDBPyConnection, sql: str) -> str | int:
    row = connection.execute(sql).fetchone()
    if row is None:
        raise StoreError(f"no answer to {sql}")
    value: str | int = row[0]
    return value
