"""Questions to the store: each in a thread, for so long at most, and no longer than somebody waits for the answer."""

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
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError

QUERY_TIMEOUT_S = 60.0

# how often to look whether the client is still there
_DISCONNECT_POLL_S = 0.2
_CLIENT_CLOSED_REQUEST = 499  # nobody reads it; servers commonly write it into their logs
_OUT_OF_MEMORY = "the answer would take more memory than the store may have"
T = TypeVar("T")


class QueryExecutor:
    """Asks a store on behalf of requests."""

    def __init__(self, store: Store, timeout_s: float = QUERY_TIMEOUT_S) -> None:
        self.store = store
        self.timeout_s = timeout_s
        self._derivation_lock = threading.Lock()
        self._derived_key = 0

    async def execute(
        self, request: Request, query: Callable[[duckdb.DuckDBPyConnection], T], *, derive_first: bool = True
    ) -> T:
        """Bring the derived tables up to date, where they must be `fresh`, and do `work` with a connection of its own.

        Raises ProblemError: 503 where the store is out of order or the answer takes too long or too much memory. The
        query of a client that goes away is interrupted.
        """
        wanted = self.store.last_span_key if derive_first else 0  # what has come by now; more need not be waited for
        cursor = await asyncio.to_thread(self._open_cursor, wanted)
        working = asyncio.ensure_future(asyncio.to_thread(self._run_query, cursor, query))
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        late = False
        try:
            while not working.done():
                await asyncio.wait((working,), timeout=_DISCONNECT_POLL_S)
                late = asyncio.get_running_loop().time() > deadline
                if not working.done() and (late or await request.is_disconnected()):
                    _interrupt(cursor)
            return await working
        except duckdb.InterruptException:
            if late:
                raise ProblemError(503, "too slow", f"the answer would take more than {self.timeout_s:g} s") from None
            raise ProblemError(_CLIENT_CLOSED_REQUEST, "gone", "the client went away") from None
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
        """Derive the spans up to a key, and what has come since, unless somebody else did while this one waited."""
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
    with suppress(duckdb.ConnectionException):  # it has just been closed, its work done
        cursor.interrupt()
