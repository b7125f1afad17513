"""Writes spans, with their resources and scopes, into the database."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa

from spanproof.collector.storage.database import checkpoint, evict_cache

if TYPE_CHECKING:
    from spanproof.collector.otlp.decoder import DecodedBatch
    from spanproof.collector.storage.recovery import StoreConnection
    from spanproof.collector.storage.telemetry import Telemetry

# Compressed, this many spans take a quarter of the memory that DuckDB may use.
_CACHE_EVICTION_INTERVAL_SPANS = 1_000_000
_SOURCE_TABLES: Final = {"resources": "resource_key", "scopes": "scope_key"}


class SpanWriter:
    """Appends batches of spans; one thread at a time."""

    def __init__(self, connection: StoreConnection, telemetry: Telemetry) -> None:
        self._connection = connection
        self._telemetry = telemetry
        connection.open(self._load_state)

    def _load_state(self) -> None:
        """Read the next span key and the known resources, scopes and services."""
        writer = self._connection.writer
        # Above the last derived key, too: spans with the keys in between may have been deleted.
        self._next_span_key = _fetch_int(writer, "SELECT greatest(max(span_key), (FROM derivation), 0) + 1 FROM spans")
        self._known_keys = {
            table: {int(value) for (value,) in writer.execute(f"SELECT {key} FROM {table}").fetchall()}  # noqa: S608 (fixed names)
            for table, key in _SOURCE_TABLES.items()
        }
        services = writer.execute("SELECT DISTINCT service FROM resources").fetchall()
        self.services = frozenset(str(service) for (service,) in services)
        self._evict_cache_at = self._next_span_key + _CACHE_EVICTION_INTERVAL_SPANS

    @property
    def last_span_key(self) -> int:
        """The key of the last committed span; 0 before the first."""
        return self._next_span_key - 1

    def append(self, batch: DecodedBatch) -> pa.Table:
        """Store a batch in one transaction; return its spans as stored. Raises StoreError, StoreUnavailable."""
        count = len(batch.spans)
        with self._connection.lock:
            self._connection.reopen_if_invalidated()
            spans = batch.spans.append_column(
                "span_key", pa.arange(self._next_span_key, self._next_span_key + count)
            ).append_column("arrived_ns", pa.repeat(pa.scalar(time.time_ns(), pa.int64()), count))
            tables = {
                "resources": self._filter_new_rows("resources", batch.resources),
                "scopes": self._filter_new_rows("scopes", batch.scopes),
                "spans": spans,
            }
            with self._telemetry.measure_commit(count):
                self._insert(tables)
            self._next_span_key += count
            for table in _SOURCE_TABLES:
                self._known_keys[table].update(tables[table].column(0).to_pylist())
            self.services |= frozenset(tables["resources"]["service"].to_pylist())
            self._evict_cache_if_due()
        return spans

    def compact(self) -> None:
        """Delete unused resources and scopes, move the log into the file and release the space of deleted rows."""
        with self._connection.lock:
            writer = self._connection.writer
            for table, key in _SOURCE_TABLES.items():
                deleted = writer.execute(
                    f"DELETE FROM {table} WHERE {key} NOT IN (SELECT {key} FROM spans) RETURNING {key}"  # noqa: S608 (fixed names)
                ).fetchall()
                self._known_keys[table].difference_update(int(value) for (value,) in deleted)
            checkpoint(writer)

    def _filter_new_rows(self, table: str, rows: pa.Table) -> pa.Table:
        keys = rows.column(0).to_pylist()
        return rows.filter(pa.array([key not in self._known_keys[table] for key in keys], pa.bool_()))

    def _evict_cache_if_due(self) -> None:
        if self._next_span_key < self._evict_cache_at or self._connection.is_in_memory:
            return
        self._evict_cache_at = self._next_span_key + _CACHE_EVICTION_INTERVAL_SPANS
        evict_cache(self._connection.writer)

    def _insert(self, tables: dict[str, pa.Table]) -> None:
        writer = self._connection.writer
        try:
            writer.execute("BEGIN")
            try:
                for name, rows in tables.items():
                    if len(rows):
                        _insert_rows(writer, name, rows)
                writer.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.Error):  # a commit that fails has rolled back already
                    writer.execute("ROLLBACK")
                raise
        except duckdb.Error as error:
            raise self._connection.explain_write_error(error) from error


def _insert_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    # DuckDB finds `rows` by its Python name, at a third of the cost of registering it.
    connection.execute(f"INSERT INTO {table} BY NAME FROM rows")


def _fetch_int(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    ((value,),) = connection.execute(sql).fetchall()
    return int(value)
