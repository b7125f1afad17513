"""Forgets old traces, so that a store may be kept for good: by age, and by the room that it takes.

A trace goes as a whole, once its last span is old enough: half a trace would be an incomplete one. Age is counted
from arrival, by this machine's clock; what spans say of their own times has no part in it. The store remembers up to
when traces were forgotten, so that nobody takes a window that reaches further back for all there was.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import duckdb

from spanproof.collector.calls.derivation import DERIVED_TABLES
from spanproof.collector.user_errors import StoreError

if TYPE_CHECKING:
    from spanproof.collector.storage.store import Store

# The room that a store is kept below must hold its log, and what comes in from one look to the next.
MIN_SIZE_BYTES = 64 * 2**20

# Forgetting begins and ends at these shares of the room allowed.
_HIGH_WATERMARK, _LOW_WATERMARK = 0.85, 0.7
_SIZE_CHECK_INTERVAL_S = 5.0
_AGE_CHECK_INTERVAL_S = 60.0
_NS_PER_S = 1_000_000_000
# A span that claims to come from the future began when it arrived, at the latest.
_RECORD_EXPIRY_SQL = """
UPDATE expiry SET last_start_ns = greatest(
    last_start_ns, (SELECT max(least(start_ns, arrived_ns)) FROM spans SEMI JOIN gone USING (trace_id))
)
"""
_log = logging.getLogger(__name__)


def find_last_expired_start_ns(connection: duckdb.DuckDBPyConnection, begin_ns: int) -> int | None:
    """Return when the last forgotten trace began, if that was not before `begin_ns`."""
    ((last_ns,),) = connection.execute("FROM expiry").fetchall()
    return None if last_ns is None or last_ns < begin_ns else int(last_ns)


class ExpiryReason(StrEnum):
    """Why spans were forgotten."""

    AGE = "age"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long traces are kept, in nanoseconds, and how many bytes the store may take; None for no limit."""

    max_age_ns: int | None = None
    max_bytes: int | None = None

    @property
    def check_interval_s(self) -> float | None:
        """Say how often to look whether something is to be forgotten, in seconds; None where nothing ever is."""
        waits = []
        if self.max_age_ns is not None:
            waits.append(min(_AGE_CHECK_INTERVAL_S, self.max_age_ns / _NS_PER_S / 10))
        if self.max_bytes is not None:
            waits.append(_SIZE_CHECK_INTERVAL_S)
        return min(waits, default=None)


class Retention:
    """Looks now and then, in a thread of its own, and forgets what is beyond the limits."""

    def __init__(self, store: Store, limits: RetentionLimits) -> None:
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
            except (StoreError, duckdb.Error):  # a full disk, for one; the next look may fare better
                _log.exception("nothing could be forgotten")


def delete_expired_traces(store: Store, limits: RetentionLimits) -> int:
    """Forget what is beyond the limits now; return how many spans that were. Raises StoreError, duckdb.Error."""
    forgotten = 0
    if limits.max_age_ns is not None:
        oldest_ns = time.time_ns() - limits.max_age_ns
        forgotten += _delete_traces_up_to(
            store, "SELECT max(span_key) FROM spans WHERE arrived_ns < ?", oldest_ns, ExpiryReason.AGE
        )
    if limits.max_bytes is not None and store.read_size_bytes() > limits.max_bytes * _HIGH_WATERMARK:
        store.compact()  # what is in the log takes several times its room in the file
        used = store.read_used_bytes()
        if used > limits.max_bytes * _HIGH_WATERMARK:
            share = 1 - limits.max_bytes * _LOW_WATERMARK / used
            first = "SELECT quantile_disc(span_key, ?) FROM spans"
            forgotten += _delete_traces_up_to(store, first, share, ExpiryReason.SIZE)
    return forgotten


def _delete_traces_up_to(store: Store, sql: str, limit: float, reason: ExpiryReason) -> int:
    """Forget the traces whose last span has at most the key that `sql` finds."""
    with store.lock, closing(store.cursor()) as connection:
        ((last_key,),) = connection.execute(sql, [limit]).fetchall()
        if last_key is None:
            return 0
        connection.execute("BEGIN")
        try:
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE gone AS"
                " SELECT DISTINCT trace_id FROM spans WHERE span_key <= $last"
                " EXCEPT SELECT trace_id FROM spans WHERE span_key > $last",
                {"last": last_key},
            )
            connection.execute(_RECORD_EXPIRY_SQL)
            ((spans,),) = connection.execute("DELETE FROM spans WHERE trace_id IN (FROM gone)").fetchall()
            for table in (*DERIVED_TABLES, "triggers"):
                connection.execute(f"DELETE FROM {table} WHERE trace_id IN (FROM gone)")  # noqa: S608 (fixed names)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if spans:
        store.telemetry.count_expired(reason, spans)
        store.compact()
    return int(spans)
