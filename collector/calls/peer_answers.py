"""Which services answered at which address: learned from all traces of a store, and used to name silent callees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from spanproof.collector.calls.peers import KnownPeers
from spanproof.collector.storage.arrow_columns import fetch_table

if TYPE_CHECKING:
    import duckdb

NO_ANSWERS: Final = pa.table({"address_key": pa.array([], pa.string()), "service": pa.array([], pa.string())})
# Traces with an attempt at one of the new addresses that another service, or none, was taken to have received.
_OUTDATED_SQL: Final = """
WITH unanswered AS (
    SELECT trace_id, callee, address, caller || ' ' || address AS own_address
    FROM attempts WHERE callee_entry IS NULL AND address IS NOT NULL
)
SELECT trace_id FROM unanswered a JOIN rows r ON r.address_key = a.address WHERE a.callee <> r.service
UNION
SELECT trace_id FROM unanswered a JOIN rows r ON r.address_key = a.own_address WHERE a.callee <> r.service
"""


def read_answers(connection: duckdb.DuckDBPyConnection) -> dict[str, frozenset[str]]:
    """Return the services that have answered at each address."""
    rows = connection.execute("SELECT address_key, list(service) FROM answers GROUP BY address_key").fetchall()
    return {key: frozenset(services) for key, services in rows}


def build_answer_rows(answers: Mapping[str, frozenset[str]], known: KnownPeers) -> pa.Table:
    """Return the answers that are not known yet as rows of ``answers``."""
    new = [
        (key, service)
        for key, services in answers.items()
        for service in sorted(services - known.services_by_address.get(key, frozenset()))
    ]
    keys, services = ([pair[index] for pair in new] for index in (0, 1))
    return pa.table({"address_key": pa.array(keys, pa.string()), "service": pa.array(services, pa.string())})


def find_outdated_names(connection: duckdb.DuckDBPyConnection, new_answers: pa.Table) -> pa.Table:
    """Return the traces in which new answers change the name of a callee: column ``trace_id``."""
    if not len(new_answers):
        return pa.table({"trace_id": pa.array([], pa.uuid())})
    return fetch_table(connection, _OUTDATED_SQL, rows=new_answers)
