"""Execution of store queries: each in a thread, with a timeout, cancelled when the client disconnects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import duckdb
from fastapi import Request

from spanproof.api.http.problems import ProblemError
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.interface import SpanStore
from spanproof.collector.user_errors import StoreError

QUERY_TIMEOUT_S = 60.0

# interval of checks whether the client is still connected
_DISCONNECT_POLL_S = 0.2
_CLIENT_CLOSED_REQUEST = 499  # not read by any client; a common status in server logs
_OUT_OF_MEMORY = "the answer would exceed the store's memory limit"
T = TypeVar("T")


class QueryExecutor:
    """Executes queries against a store on behalf of HTTP requests."""

    def __init__(self, store: SpanStore, timeout_s: float = QUERY_TIMEOUT_S) -> None:
        self.store = store
        self.timeout_s = timeout_s
        self._derivation_lock = threading.Lock()
        self._derived_key = 0

    async def execute(
        self, request: Request, query: Callable[[duckdb.DuckDBPyConnection], T], *, derive_first: bool = True
    ) -> T:
        """Execute `query` on a connection of its own; if `derive_first`, bring the derived tables up to date before.

        Raises ProblemError with 503 if the store is unusable, or if the answer takes too long or too much memory. The
        query is interrupted if the client disconnects.
        """
        last_span_key = self.store.last_span_key if derive_first else 0  # later spans need not be derived
        cursor = await asyncio.to_thread(self._open_cursor, last_span_key)
        task = asyncio.ensure_future(asyncio.to_thread(self._run_query, cursor, query))
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        timed_out = False
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=_DISCONNECT_POLL_S)
                timed_out = asyncio.get_running_loop().time() > deadline
                if not task.done() and (timed_out or await request.is_disconnected()):
                    _interrupt(cursor)
            return await task
        except duckdb.InterruptException:
            if timed_out:
                raise ProblemError(503, "too slow", f"the answer would take more than {self.timeout_s:g} s") from None
            raise ProblemError(
                _CLIENT_CLOSED_REQUEST, "client disconnected", "the client closed the connection"
            ) from None
        except duckdb.OutOfMemoryException:
            raise ProblemError(503, "too much", _OUT_OF_MEMORY) from None
        except asyncio.CancelledError:
            _interrupt(cursor)
            raise

    def _open_cursor(self, last_span_key: int) -> duckdb.DuckDBPyConnection:
        try:
            self._derive(last_span_key)
            return self.store.cursor()
        except duckdb.OutOfMemoryException:
            raise ProblemError(503, "too much", _OUT_OF_MEMORY) from None
        except (StoreError, duckdb.IOException, duckdb.FatalException) as error:
            raise ProblemError(503, "not ready", str(error)) from None

    def _derive(self, last_span_key: int) -> None:
        """Derive the spans up to a key and all later ones, unless another thread did while this one waited."""
        with self._derivation_lock:
            if self._derived_key < last_span_key:
                up_to = self.store.last_span_key
                derive_calls(self.store)
                self._derived_key = up_to

    @staticmethod
    def _run_query(cursor: duckdb.DuckDBPyConnection, query: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        try:
            return query(cursor)
        finally:
            cursor.close()


def _interrupt(cursor: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.ConnectionException):  # the query has just ended and closed its cursor
        cursor.interrupt()
