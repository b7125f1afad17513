"""The store: received spans and derived tables in one DuckDB file, or in memory.

`Store` puts the parts together: `database` opens the file and `recovery` reopens it, `writer` appends, and
`commit_notifications` notifies listeners. `interface` is what the other rooms use of it.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Self

from spanproof.collector.storage.arrow_columns import fetch_table
from spanproof.collector.storage.commit_notifications import ArrivalNotifier, ArrivedSpans
from spanproof.collector.storage.interface import SpanStore
from spanproof.collector.storage.recovery import StoreConnection
from spanproof.collector.storage.schema import IN_MEMORY_PATH
from spanproof.collector.storage.telemetry import Telemetry
from spanproof.collector.storage.writer import SpanWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import duckdb
    import pyarrow as pa

    from spanproof.collector.otlp.decoder import DecodedBatch
    from spanproof.collector.storage.commit_notifications import CommitListener

__all__ = ["ArrivedSpans", "Store"]


class Store(SpanStore):
    """Spans in DuckDB. One thread at a time appends; any number of threads read, each with its own `cursor()`.

    Writers of derived tables hold `lock`, so that no two threads derive the same trace. Appending does not need it:
    DuckDB lets writers of different tables work in parallel.
    """

    def __init__(self, path: str, settings: Mapping[str, str], telemetry: Telemetry) -> None:
        self.lock = threading.RLock()
        self.telemetry = telemetry
        self._connection = StoreConnection(path, settings)
        self._writer = SpanWriter(self._connection, self.telemetry)
        self._notifier = ArrivalNotifier()
        self._empty_tables: dict[str, pa.Table] = {}

    @classmethod
    def open(
        cls,
        path: str | Path = IN_MEMORY_PATH,
        *,
        settings: Mapping[str, str] | None = None,
        telemetry: Telemetry | None = None,
    ) -> Self:
        """Open the file at `path`, or a new store in memory; `settings` are DuckDB's. Raises StoreError."""
        return cls(str(path), settings or {}, telemetry or Telemetry())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store after the append in progress."""
        self._connection.close()

    def append(self, batch: DecodedBatch) -> None:
        """Store a batch in one transaction, then notify listeners. Raises StoreError, StoreUnavailable."""
        if len(batch.spans):
            self._notifier.notify(self._writer.append(batch))

    def compact(self) -> None:
        """Move the log into the file and release the space of deleted rows; appends wait meanwhile."""
        with self.lock:
            self._writer.compact()

    def subscribe(self, listener: CommitListener) -> Callable[[], None]:
        """Call `listener` after each commit, in the thread that appended. Return what ends the subscription."""
        return self._notifier.subscribe(listener)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for one thread; close it after use. Raises StoreError, StoreUnavailable."""
        return self._connection.cursor()

    @property
    def last_span_key(self) -> int:
        """The key of the last committed span; 0 before the first."""
        return self._writer.last_span_key

    @property
    def services(self) -> frozenset[str]:
        """The services that have sent spans."""
        return self._writer.services

    def read_empty_table(self, table: str) -> pa.Table:
        """Return a table of the schema without its rows."""
        if table not in self._empty_tables:
            with closing(self.cursor()) as cursor:
                self._empty_tables[table] = fetch_table(cursor, f"FROM {table} LIMIT 0")
        return self._empty_tables[table]

    def read_size_bytes(self) -> int:
        """Return the size of the file and its log; 0 for a store in memory."""
        return _read_file_size(self._connection.path) + self._read_log_size()

    def read_used_bytes(self) -> int:
        """Return how much of the file and its log is in use; deleted rows leave free space in the file."""
        with closing(self.cursor()) as cursor:
            ((used,),) = cursor.execute(
                "SELECT block_size * used_blocks FROM pragma_database_size() WHERE database_name = current_database()"
            ).fetchall()
        return int(used) + self._read_log_size()

    def _read_log_size(self) -> int:
        return _read_file_size(f"{self._connection.path}.wal")


def _read_file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
