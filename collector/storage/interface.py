"""The interface of a store: what the other rooms use of it, whatever engine is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import duckdb
    import pyarrow as pa

    from spanproof.collector.otlp.decoder import DecodedBatch
    from spanproof.collector.storage.commit_notifications import CommitListener
    from spanproof.collector.storage.telemetry import Telemetry


class SpanStore(Protocol):
    """A store of spans and of the tables derived from them.

    One thread at a time appends; any number of threads read, each with its own `cursor()`. Writers of derived tables
    hold `lock`. SQL is in `.sql` files, in `query_lang/compile`, and in a few queries beside the code that needs them;
    a cursor executes it.
    """

    lock: threading.RLock
    telemetry: Telemetry

    def append(self, batch: DecodedBatch) -> None:
        """Store a batch in one transaction, then notify listeners. Raises StoreError, StoreUnavailable."""

    def compact(self) -> None:
        """Release the space of deleted rows; appends wait meanwhile."""

    def subscribe(self, listener: CommitListener) -> Callable[[], None]:
        """Call `listener` after each commit, in the thread that appended. Return what ends the subscription."""

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for one thread; close it after use. Raises StoreError, StoreUnavailable."""

    @property
    def last_span_key(self) -> int:
        """The key of the last committed span; 0 before the first."""

    @property
    def services(self) -> frozenset[str]:
        """The services that have sent spans."""

    def read_empty_table(self, table: str) -> pa.Table:
        """Return a table of the schema without its rows."""

    def read_size_bytes(self) -> int:
        """Return the size of the files of the store; 0 if it has none."""

    def read_used_bytes(self) -> int:
        """Return how much of the files is in use."""
