"""Traces that new spans affect, with all their spans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.extracted_attributes import ExtractedAttributes, map_distinct_texts
from spanproof.collector.calls.retryable_failures import classify_http_status, has_rpc_failed
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import fetch_table, get_single_chunk

if TYPE_CHECKING:
    import duckdb

# ``sql/affected_traces.sql`` for a store without links: the traces of the spans with keys from `$first` to `$last`.
_AFFECTED_WITHOUT_LINKS_SQL: Final = """
SELECT changed.*, first_key, last_key
FROM (
    SELECT trace_id, true AS dirty, bool_or(kind IN (2, 5) AND len(links) > 0) AS has_links
    FROM spans WHERE span_key BETWEEN $first AND $last
    GROUP BY trace_id
) changed
LEFT JOIN traces USING (trace_id)
"""
# gRPC status values for success, in the old and the new semantic conventions


@dataclass(frozen=True, slots=True)
class AffectedTraces:
    """Traces to derive (``dirty``), and the traces that links tie to them.

    `table` has one row per trace, with ``trace_id`` and ``dirty``. Their span keys are from `first_key` to `last_key`.
    """

    table: pa.Table
    first_key: int
    last_key: int

    @property
    def dirty(self) -> pa.Table:
        """The traces to derive."""
        return self.table.filter(self.table["dirty"])

    @property
    def has_derived_rows(self) -> bool:
        """Whether rows derived earlier exist for any of these traces."""
        new_count: int = self.table["first_key"].null_count
        return new_count < len(self.table)


def find_affected_traces(
    connection: duckdb.DuckDBPyConnection, first: int, last: int, *, has_links: bool
) -> AffectedTraces:
    """Return the traces to derive for the spans with keys from `first` to `last`.

    `has_links`: the store contains entry links.
    """
    keys = {"first": first, "last": last}
    table = fetch_table(
        connection, _read_sql("affected_traces.sql") if has_links else _AFFECTED_WITHOUT_LINKS_SQL, keys
    )
    if not has_links and pc.any(table["has_links"]).as_py():
        table = fetch_table(connection, _read_sql("affected_traces.sql"), keys)
    min_key, max_key = pc.min(table["first_key"]).as_py(), pc.max(table["last_key"]).as_py()
    return AffectedTraces(
        table, first if min_key is None else min(first, min_key), last if max_key is None else max(last, max_key)
    )


def read_span_batch(connection: duckdb.DuckDBPyConnection, affected: AffectedTraces) -> SpanBatch:
    """Return all spans of these traces."""
    keys = {"first": affected.first_key, "last": affected.last_key}
    return SpanBatch(
        add_extracted_attributes(fetch_table(connection, _read_sql("new_spans.sql"), keys, affected.table))
    )


def add_extracted_attributes(spans: pa.Table) -> pa.Table:
    """Add the extracted attributes to the columns that ``sql/new_spans.sql`` reads."""
    attributes = ExtractedAttributes(get_single_chunk(spans["keys"]), get_single_chunk(spans["texts"]))
    kinds = get_single_chunk(spans["kind"])
    # gRPC's own instrumentation makes a span of unspecified kind for each attempt; each is an exit span (gRFC A66, A72)
    rpc_attempt = pc.and_(
        pc.starts_with(get_single_chunk(spans["name"]), "Attempt."), pa.array(attributes.has_any("attempts_before"))
    )
    extracted = {
        "exported_kind": kinds,
        "kind": pc.if_else(rpc_attempt, pa.scalar(semconv.SPAN_KINDS["client"], kinds.type), kinds),
        "rpc_attempt": rpc_attempt,
        "http_outcome": map_distinct_texts(attributes.read("http_status"), classify_http_status, pa.uint8()),
        "rpc_failed": has_rpc_failed(attributes.read("rpc_status")),
        "peer": pc.coalesce(
            attributes.read("peer_name"), attributes.read("db_system"), attributes.read("messaging_system")
        ),
        "server_address": attributes.read("server_address"),
        "server_port": attributes.read("server_port"),
        "resend_count": pc.coalesce(attributes.read_int("resend_count"), attributes.read_int("attempts_before")),
        "deliveries": attributes.read_int("deliveries"),
        "has_error_type": attributes.has_any("error_type"),
        "is_db": attributes.has_any("db_system"),
        "is_messaging": attributes.has_any("messaging_system"),
        "is_rpc": attributes.has_any("rpc_system", "rpc_service"),
        "is_http": attributes.has_any("http_method", "url", "http_status"),
    }
    return pa.table({**dict(zip(spans.column_names, spans.columns, strict=True)), **extracted})


@cache
def _read_sql(name: str) -> str:
    return resources.files("spanproof.collector.calls").joinpath("sql", name).read_text(encoding="utf-8")
