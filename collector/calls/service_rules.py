"""Rules that users declare for their services: sidecars, edges, calls, retry gap, clock skew, circuit markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct
from msgspec.structs import asdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spanproof.collector.storage.interface import SpanStore


class ServiceRules(Struct, frozen=True):
    """The rules of a store.

    ``proxies`` are services whose hops are not separate calls. A retry starts at most ``max_retry_gap_ns`` after the
    failure. Times of two processes are comparable if they differ by more than ``max_clock_skew_ns``.
    ``circuit_markers`` are names of attributes, events or exception types that show that an open circuit rejected a
    request. ``edges`` are services in front of which something rewrites ``traceparent``, so that the parents of their
    spans never arrive. ``retried_calls`` and ``distinct_calls`` are calls (``orders -> payments``) whose attempts are
    one call, or are not, where that is only possible.
    """

    proxies: tuple[str, ...] = ()
    max_retry_gap_ns: int = 60_000_000_000
    max_clock_skew_ns: int = 10_000_000
    circuit_markers: tuple[str, ...] = (
        "CallNotPermittedException",  # resilience4j
        "BrokenCircuitException",  # Polly
        "CircuitBreakerError",  # pybreaker
        "OpenCircuitError",
    )
    edges: tuple[str, ...] = ()
    retried_calls: tuple[str, ...] = ()
    distinct_calls: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the rules from the store's row."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
        }
        return cls(**values)


def store_rules(store: SpanStore, rules: ServiceRules) -> None:
    """Store `rules`. If they change which calls exist, reset derivation, so that all calls are derived again."""
    values = asdict(rules)
    columns = ", ".join(f"${name} AS {name}" for name in values)
    with store.lock:
        connection = store.cursor()
        try:
            connection.execute("BEGIN")
            derivation_rules_sql = "SELECT proxies, max_retry_gap_ns, edges FROM rules"
            before = connection.execute(derivation_rules_sql).fetchone()
            connection.execute("DELETE FROM rules")
            connection.execute(
                f"INSERT INTO rules BY NAME SELECT {columns}",
                {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
            )
            if connection.execute(derivation_rules_sql).fetchone() != before:
                connection.execute("UPDATE derivation SET last_span_key = -1")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        finally:
            connection.close()
