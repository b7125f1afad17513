"""Derives calls from spans: who asked whom, how it went, and which attempts belong together.

The rules stand in ``sql`` and work on all traces at once that have changed since the last time: ``dirty.sql`` finds
these, ``repeated.sql`` and ``fresh.sql`` read their spans, ``tree.sql`` says where each stands, ``exchanges.sql`` who
asked whom, ``attempts.sql`` and ``alone.sql`` which attempts are one call.
"""

from __future__ import annotations

from contextlib import closing
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from spanproof.collector import semconv

if TYPE_CHECKING:
    import duckdb

    from spanproof.collector.store import Store

DERIVED: Final = ("tree", "exchanges", "calls", "entry_links", "continuations")
# How many new spans are derived at once: so that what is at hand of them stays within the memory there is.
_AT_ONCE: Final = 500_000
# Only where something failed, is told to be a further attempt, or was answered twice, may attempts belong together.
_SOME_LINKED: Final = """
SELECT EXISTS (FROM found WHERE retryable OR resend_count >= 1)
    OR EXISTS (SELECT client_key FROM pairs WHERE shape = 'paired' GROUP BY ALL HAVING count(*) > 1)
"""
_NONE_LINKED: Final = "CREATE OR REPLACE TEMP TABLE linked (exchange_key BIGINT)"


def derive(store: Store) -> int:
    """Bring the derived tables up to date with the spans stored so far; return how many traces changed.

    Duplicates of a span (same trace, span id, kind and service) are dropped on the way: the one that ends
    last stays.
    """
    changed = 0
    with store.lock, store.telemetry.measure_derivation() as tell_traces, closing(store.cursor()) as connection:
        newest = store.last_key  # where spans keep coming, what comes from now on is for the next time
        while (more := _derive_next(connection, newest)) is not None:
            changed += more
        tell_traces(changed)
    return changed


def _derive_next(connection: duckdb.DuckDBPyConnection, newest: int) -> int | None:
    """Derive the next new spans up to a key, in a transaction; return how many traces that changed, None: no more."""
    connection.execute("BEGIN")
    try:
        ((derived, next_),) = connection.execute(
            "SELECT last_span_key, (SELECT min(span_key) FROM spans WHERE span_key > last_span_key AND span_key <= ?)"
            " FROM derivation",
            [newest],
        ).fetchall()
        changed = None if next_ is None else _derive_up_to(connection, derived, min(newest, next_ + _AT_ONCE - 1))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return changed


def _derive_up_to(connection: duckdb.DuckDBPyConnection, derived: int, last: int) -> int:
    _set(connection, "last_key", last)
    connection.execute(_sql("dirty.sql"))
    ((changed, first, end),) = connection.execute(
        "SELECT (SELECT count(*) FROM around WHERE dirty), min(span_key), max(span_key)"
        " FROM spans SEMI JOIN around USING (trace_id)"
    ).fetchall()
    _set(connection, "first_key", first)
    _set(connection, "end_key", end)
    if first <= derived or derived < 0:
        # all of it, if everything is to be derived again
        where = "trace_id IN (SELECT trace_id FROM around WHERE dirty)" if derived >= 0 else "true"
        for table in DERIVED:
            connection.execute(f"DELETE FROM {table} WHERE {where}")  # noqa: S608 (fixed names)
    connection.execute(_sql("repeated.sql"))
    connection.execute(_fresh())
    connection.execute(_sql("tree.sql"))
    connection.execute(_sql("exchanges.sql"))
    ((some_linked,),) = connection.execute(_SOME_LINKED).fetchall()
    connection.execute(_attempts() if some_linked else _NONE_LINKED)
    connection.execute(_sql("alone.sql"))
    connection.execute("UPDATE derivation SET last_span_key = $last", {"last": last})
    return int(changed)


def _set(connection: duckdb.DuckDBPyConnection, variable: str, value: int) -> None:
    connection.execute(f"SET VARIABLE {variable} = $value", {"value": value})


@cache
def _fresh() -> str:
    places = ", ".join(f"{semconv.find_attribute('keys', name)} AS {fact}" for fact, name in semconv.FACTS.items())
    return _sql("fresh.sql").format(places=places)


@cache
def _attempts() -> str:
    facts = {fact: semconv.read_attribute("x.attributes", name) for fact, name in semconv.FACTS.items()}
    return _sql("attempts.sql").format(**facts)


@cache
def _sql(name: str) -> str:
    return resources.files("spanproof.collector").joinpath("sql", name).read_text(encoding="utf-8")
