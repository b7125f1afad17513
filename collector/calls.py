"""Derives calls from spans: who asked whom, how it went, and which attempts belong together.

The rules stand in ``sql/derive.sql`` and work on all traces at once that have changed since the last time.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from spanproof.collector import semconv

if TYPE_CHECKING:
    import duckdb

    from spanproof.collector.store import Store

# gRPC's own instrumentation has a span for each attempt, of no certain kind; each is an exit span (gRFC A66, A72).
RPC_ATTEMPT: Final = (
    f"(starts_with(name, 'Attempt.') AND {semconv.read_attribute('attributes', 'previous-rpc-attempts')} IS NOT NULL)"
)
DERIVED: Final = ("tree", "exchanges", "calls", "entry_links", "continuations")


def derive(store: Store) -> int:
    """Bring the derived tables up to date with the spans stored so far; return how many traces changed.

    Duplicates of a span (same trace, span id, kind and service) are dropped on the way: the one that ends
    last stays.
    """
    with store.lock, store.telemetry.measure_derivation() as tell_traces:
        connection = store.cursor()
        try:
            connection.execute("BEGIN")
            changed = _find_dirty(connection)
            if changed:
                _derive_dirty(connection)
            connection.execute("COMMIT")
            tell_traces(changed)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        finally:
            connection.close()
    return changed


def _find_dirty(connection: duckdb.DuckDBPyConnection) -> int:
    """Fill ``dirty`` with the traces that have new spans, and those tied to one of these by a link."""
    connection.execute(_sql("dirty.sql"))
    row = connection.execute("SELECT count(*) FROM dirty").fetchone()
    return int(row[0]) if row else 0


def _derive_dirty(connection: duckdb.DuckDBPyConnection) -> None:
    for table in DERIVED:
        connection.execute(f"DELETE FROM {table} WHERE trace_id IN (FROM dirty)")  # noqa: S608 (fixed names)
    facts = ", ".join(
        f"{semconv.read_attribute('attributes', name)} AS {column}" for column, name in semconv.FACTS.items()
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE fresh AS SELECT *"  # noqa: S608 (fixed names)
        " REPLACE (CASE WHEN rpc_attempt THEN 3 ELSE kind END AS kind)"
        " FROM (SELECT span_key, trace_id, span_id, parent_id, service, name, kind, start_ns, end_ns, status, links,"
        f" {RPC_ATTEMPT} AS rpc_attempt, {facts} FROM spans WHERE trace_id IN (FROM dirty))"
    )
    connection.execute(_sql("derive.sql"))


@cache
def _sql(name: str) -> str:
    return resources.files("spanproof.collector").joinpath("sql", name).read_text(encoding="utf-8")
