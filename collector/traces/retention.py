"""Deletion of expired traces, by age and by store size.

A trace expires as a whole, once its last span is old enough, because a part of a trace would look incomplete. Age
counts from arrival, by the clock of this machine; the times in the spans have no effect. The store records the start of
the last expired trace, so that a time window that reaches further back is known to be incomplete.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import duckdb
from msgspec import Struct

from spanproof.collector.calls.derivation import DERIVED_TABLES
from spanproof.collector.user_errors import StoreError

if TYPE_CHECKING:
    from spanproof.collector.storage.interface import SpanStore

# A size limit must leave room for the log and for the spans that arrive between two checks.
MIN_SIZE_BYTES = 64 * 2**20

# Deletion starts above the first and stops at the second of these shares of the size limit.
_HIGH_WATERMARK, _LOW_WATERMARK = 0.85, 0.7
_SIZE_CHECK_INTERVAL_S = 5.0
_AGE_CHECK_INTERVAL_S = 60.0
_NS_PER_S = 1_000_000_000
# The start of a span is at the latest its arrival, even if its own time is in the future.
_RECORD_EXPIRY_SQL = """
UPDATE expiry SET last_start_ns = greatest(
    last_start_ns, (SELECT max(least(start_ns, arrived_ns)) FROM spans SEMI JOIN expired USING (trace_id))
)
"""
_log = logging.getLogger(__name__)


def find_last_expired_start_ns(connection: duckdb.DuckDBPyConnection, begin_ns: int) -> int | None:
    """Return the start of the last expired trace, or None if it is before `begin_ns`."""
    ((last_ns,),) = connection.execute("FROM expiry").fetchall()
    return None if last_ns is None or last_ns < begin_ns else int(last_ns)


class ExpiryReason(StrEnum):
    """Why spans were deleted."""

    AGE = "age"
    SIZE = "size"


class RetentionLimits(Struct, frozen=True):
    """Maximum age of traces in nanoseconds and maximum size of the store in bytes; None means no limit."""

    max_age_ns: int | None = None
    max_bytes: int | None = None

    @property
    def check_interval_s(self) -> float | None:
        """Return the interval between checks in seconds, or None without limits."""
        intervals = []
        if self.max_age_ns is not None:
            intervals.append(min(_AGE_CHECK_INTERVAL_S, self.max_age_ns / _NS_PER_S / 10))
        if self.max_bytes is not None:
            intervals.append(_SIZE_CHECK_INTERVAL_S)
        return min(intervals, default=None)


class Retention:
    """Thread that checks the limits at intervals and deletes expired traces."""

    def __init__(self, store: SpanStore, limits: RetentionLimits) -> None:
        self._store = store
        self._limits = limits
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._enforce_until_stopped, name="spanproof-retention", daemon=True)

    def __enter__(self) -> Self:
        if self._limits.check_interval_s is not None:
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _enforce_until_stopped(self) -> None:
        while not self._stopping.wait(self._limits.check_interval_s):
            try:
                delete_expired_traces(self._store, self._limits)
            except (StoreError, duckdb.Error):  # for example a full disk; the next check may succeed
                _log.exception("cannot delete expired traces")


def delete_expired_traces(store: SpanStore, limits: RetentionLimits) -> int:
    """Delete the traces beyond the limits; return the number of spans. Raise StoreError, duckdb.Error."""
    deleted = 0
    if limits.max_age_ns is not None:
        oldest_ns = time.time_ns() - limits.max_age_ns
        deleted += _delete_traces_up_to(
            store, "SELECT max(span_key) FROM spans WHERE arrived_ns < ?", oldest_ns, ExpiryReason.AGE
        )
    if limits.max_bytes is not None and store.read_size_bytes() > limits.max_bytes * _HIGH_WATERMARK:
        store.compact()  # rows take several times more room in the log than in the file
        used_bytes = store.read_used_bytes()
        if used_bytes > limits.max_bytes * _HIGH_WATERMARK:
            share = 1 - limits.max_bytes * _LOW_WATERMARK / used_bytes
            key_quantile_sql = "SELECT quantile_disc(span_key, ?) FROM spans"
            deleted += _delete_traces_up_to(store, key_quantile_sql, share, ExpiryReason.SIZE)
    return deleted


def _delete_traces_up_to(store: SpanStore, sql: str, limit: float, reason: ExpiryReason) -> int:
    """Delete the traces whose last span has at most the key that `sql` returns."""
    with store.lock, closing(store.cursor()) as connection:
        ((last_key,),) = connection.execute(sql, [limit]).fetchall()
        if last_key is None:
            return 0
        connection.execute("BEGIN")
        try:
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE expired AS"
                " SELECT DISTINCT trace_id FROM spans WHERE span_key <= $last"
                " EXCEPT SELECT trace_id FROM spans WHERE span_key > $last",
                {"last": last_key},
            )
            connection.execute(_RECORD_EXPIRY_SQL)
            ((span_count,),) = connection.execute("DELETE FROM spans WHERE trace_id IN (FROM expired)").fetchall()
            for table in (*DERIVED_TABLES, "triggers"):
                connection.execute(f"DELETE FROM {table} WHERE trace_id IN (FROM expired)")  # noqa: S608 (fixed names)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if span_count:
        store.telemetry.count_expired(reason, span_count)
        store.compact()
    return int(span_count)
