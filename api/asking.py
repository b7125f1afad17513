"""Questions to the store: each in a thread, for so long at most, and no longer than somebody waits for the answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import duckdb
from fastapi import Request

from spanproof.api.problems import ProblemError
from spanproof.collector.calls import derive
from spanproof.collector.store import Store, StoreError

LIMIT_S = 60.0

# how often to look whether the client is still there
_LOOK_EVERY_S = 0.2
_GONE = 499  # nobody reads it; servers commonly write it into their logs
_TOO_MUCH = "the answer would take more memory than the store may have"
T = TypeVar("T")


class Asker:
    """Asks a store on behalf of requests."""

    def __init__(self, store: Store, limit_s: float = LIMIT_S) -> None:
        self.store = store
        self.limit_s = limit_s
        self._deriving = threading.Lock()
        self._derived_key = 0

    async def ask(self, request: Request, work: Callable[[duckdb.DuckDBPyConnection], T], *, fresh: bool = True) -> T:
        """Bring the derived tables up to date, where they must be `fresh`, and do `work` with a connection of its own.

        Raises ProblemError: 503 where the store is out of order or the answer takes too long or too much memory. The
        query of a client that goes away is interrupted.
        """
        wanted = self.store.last_key if fresh else 0  # what has come by now; more need not be waited for
        cursor = await asyncio.to_thread(self._open, wanted)
        working = asyncio.ensure_future(asyncio.to_thread(self._work, cursor, work))
        deadline = asyncio.get_running_loop().time() + self.limit_s
        late = False
        try:
            while not working.done():
                await asyncio.wait((working,), timeout=_LOOK_EVERY_S)
                late = asyncio.get_running_loop().time() > deadline
                if not working.done() and (late or await request.is_disconnected()):
                    _interrupt(cursor)
            return await working
        except duckdb.InterruptException:
            if late:
                raise ProblemError(503, "too slow", f"the answer would take more than {self.limit_s:g} s") from None
            raise ProblemError(_GONE, "gone", "the client went away") from None
        except duckdb.OutOfMemoryException:
            raise ProblemError(503, "too much", _TOO_MUCH) from None
        except asyncio.CancelledError:
            _interrupt(cursor)
            raise

    def _open(self, wanted: int) -> duckdb.DuckDBPyConnection:
        try:
            self._derive(wanted)
            return self.store.cursor()
        except duckdb.OutOfMemoryException:
            raise ProblemError(503, "too much", _TOO_MUCH) from None
        except (StoreError, duckdb.IOException, duckdb.FatalException) as error:
            raise ProblemError(503, "not ready", str(error)) from None

    def _derive(self, wanted: int) -> None:
        """Derive the spans up to a key, and what has come since, unless somebody else did while this one waited."""
        with self._deriving:
            if self._derived_key < wanted:
                up_to = self.store.last_key
                derive(self.store)
                self._derived_key = up_to

    @staticmethod
    def _work(cursor: duckdb.DuckDBPyConnection, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        try:
            return work(cursor)
        finally:
            cursor.close()


def _interrupt(cursor: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.ConnectionException):  # it has just been closed, its work done
        cursor.interrupt()
