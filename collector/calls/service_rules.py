"""What no span says and the user does: which services are sidecars, how far to trust clocks, what marks a refusal."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spanproof.collector.storage.store import Store


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """The rules of a store; it keeps them, and claims are judged by those it keeps.

    ``proxies`` are services whose hops are no calls of their own. A retry comes at most ``max_retry_gap_ns`` after
    what failed. Clocks of two processes are compared beyond ``max_clock_skew_ns``. ``circuit_markers`` are names of
    attributes or events, or exception types, that show that an open circuit turned a request away.
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

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read them from the row that the store has of them."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
        }
        return cls(**values)


def store_rules(store: Store, rules: ServiceRules) -> None:
    """Keep `rules` in the store. Where they change which calls there are, all are derived again."""
    values = {field.name: getattr(rules, field.name) for field in fields(ServiceRules)}
    columns = ", ".join(f"${name} AS {name}" for name in values)
    with store.lock:
        connection = store.cursor()
        try:
            connection.execute("BEGIN")
            deriving = "SELECT proxies, max_retry_gap_ns FROM rules"
            before = connection.execute(deriving).fetchone()
            connection.execute("DELETE FROM rules")
            connection.execute(
                f"INSERT INTO rules BY NAME SELECT {columns}",
                {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
            )
            if connection.execute(deriving).fetchone() != before:
                connection.execute("UPDATE derivation SET last_span_key = -1")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        finally:
            connection.close()
