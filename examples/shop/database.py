"""The SQLite database of orders, with a CLIENT span for each statement."""

import sqlite3
from typing import Any

from opentelemetry.trace import SpanKind

from spanproof.examples.shop.telemetry import tracer


class Database:
    """An in-memory database of orders, which ends with the process."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)  # autocommit
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, cart TEXT, amount INTEGER, state TEXT)")

    def execute(self, summary: str, query: str, *values: str | int) -> list[dict[str, Any]]:
        """Execute one statement; `summary` names it as `OPERATION table`."""
        operation, table = summary.split()
        attributes = {
            "db.system.name": "sqlite",
            "db.namespace": "shop",
            "db.operation.name": operation,
            "db.collection.name": table,
            "db.query.summary": summary,
            "db.query.text": query,
        }
        with tracer.start_as_current_span(summary, kind=SpanKind.CLIENT, attributes=attributes):
            return [dict(row) for row in self._connection.execute(query, values)]
