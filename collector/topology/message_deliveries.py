"""Deliveries of messages: the key of a message, and the traces in which the same message was delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import execute_with_rows, fetch_table, to_bool_array
from spanproof.collector.topology.extracted_attributes import ExtractedAttributes
from spanproof.collector.topology.span_batch import SpanBatch

if TYPE_CHECKING:
    import duckdb

_SEPARATOR, _EMPTY_TEXT, _SLASH = (pa.scalar(text, pa.string()) for text in ("\x1f", "", "/"))
_INSERT_SQL: Final = "INSERT INTO deliveries SELECT trace_id, hash(message_key), is_unlinked FROM rows"
# A delivery that neither a parent nor a link ties to its producer belongs to the call of the other deliveries.
_RELATED_SQL: Final = """
SELECT DISTINCT d.trace_id
FROM deliveries d
JOIN (SELECT hash(message_key) AS message, bool_or(is_unlinked) AS is_unlinked FROM rows GROUP BY ALL) new
    ON new.message = d.message AND (new.is_unlinked OR d.is_unlinked)
WHERE d.trace_id NOT IN (SELECT trace_id FROM rows)
"""


def make_message_keys(attributes: ExtractedAttributes, services: pa.Array) -> pa.Array:
    """Return a key of each message for each service that takes it up; null where the message has no id."""
    offset = pc.binary_join_element_wise(
        attributes.read("message_partition"), attributes.read("message_offset"), _SLASH
    )
    id_ = pc.coalesce(attributes.read("message_id"), offset)
    if id_.null_count == len(id_):
        return id_
    parts = (attributes.read(name) for name in ("consumer_group", "messaging_system", "destination"))
    return pc.binary_join_element_wise(services, *(pc.coalesce(part, _EMPTY_TEXT) for part in parts), id_, _SEPARATOR)


def read_deliveries(spans: SpanBatch) -> pa.Table:
    """Return the deliveries of messages with a key: ``trace_id``, ``message_key``, ``is_unlinked``, ``dirty``."""
    keys = spans.column("message_key")
    is_delivery = to_bool_array(keys.is_valid()) & (spans.kinds == semconv.SPAN_KINDS["consumer"])
    columns = {
        "trace_id": spans.column("trace_id"),
        "message_key": keys,
        "is_unlinked": pa.array(spans.is_unlinked),
        "dirty": spans.column("dirty"),
    }
    return pa.table(columns).filter(pa.array(is_delivery))


def find_related_traces(connection: duckdb.DuckDBPyConnection, deliveries: pa.Table) -> pa.Table:
    """Return the other traces in which messages of these deliveries were delivered: column ``trace_id``."""
    return fetch_table(connection, _RELATED_SQL, rows=deliveries)


def store_deliveries(connection: duckdb.DuckDBPyConnection, deliveries: pa.Table) -> None:
    """Store the deliveries of the traces to derive."""
    execute_with_rows(connection, _INSERT_SQL, deliveries.filter(deliveries["dirty"]))
