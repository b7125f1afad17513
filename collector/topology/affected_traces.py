"""Traces that new spans affect, with all their spans."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import fetch_table, get_single_chunk
from spanproof.collector.topology.extracted_attributes import ExtractedAttributes, map_distinct_texts
from spanproof.collector.topology.message_deliveries import make_message_keys
from spanproof.collector.topology.server_addresses import read_addresses
from spanproof.collector.topology.span_batch import SpanBatch
from spanproof.collector.topology.span_errors import classify_http_status, classify_rpc_status

if TYPE_CHECKING:
    import duckdb

# ``sql/affected_traces.sql`` for a store without links: the traces of the spans with keys from `$first` to `$last`.
_AFFECTED_WITHOUT_LINKS_SQL: Final = """
SELECT changed.*, first_key, last_key
FROM (
    SELECT trace_id, true AS dirty, bool_or(kind IN (2, 3, 5) AND len(links) > 0) AS has_links
    FROM spans WHERE span_key BETWEEN $first AND $last
    GROUP BY trace_id
) changed
LEFT JOIN traces USING (trace_id)
"""
# Typed scalars: for a Python value, pyarrow infers the type at each call, at ten times the cost of a comparison.
_SERVER, _CLIENT, _CONSUMER = (
    pa.scalar(semconv.SPAN_KINDS[name], pa.int32()) for name in ("server", "client", "consumer")
)
_RECEIVE = pa.scalar("receive", pa.string())


class AffectedTraces(Struct, frozen=True):
    """Traces to derive (``dirty``), and the traces that links tie to them.

    `table` has one row per trace, with ``trace_id`` and ``dirty``. Their span keys are from `first_key` to `last_key`.
    The keys of spans that have not been derived are from `first_new_key` to `last_new_key`.
    """

    table: pa.Table
    first_key: int
    last_key: int
    first_new_key: int
    last_new_key: int

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
    if not has_links:
        table = fetch_table(connection, _AFFECTED_WITHOUT_LINKS_SQL, keys)
        if not pc.any(table["has_links"]).as_py():
            return _make_affected_traces(table, first, last)
    changed_sql = "SELECT DISTINCT trace_id FROM spans WHERE span_key BETWEEN $first AND $last"
    return _add_linked_traces(connection, fetch_table(connection, changed_sql, keys), first, last)


def find_outdated_traces(connection: duckdb.DuckDBPyConnection, outdated: pa.Table) -> AffectedTraces:
    """Return the traces to derive because their rows in the derived tables are out of date: column ``trace_id``."""
    return _add_linked_traces(connection, outdated, 1, 0)


def add_affected_traces(
    connection: duckdb.DuckDBPyConnection, affected: AffectedTraces, others: pa.Table
) -> AffectedTraces:
    """Return `affected` with other traces to derive: column ``trace_id``."""
    changed = pa.concat_tables([affected.dirty.select(["trace_id"]), others])
    return _add_linked_traces(connection, changed, affected.first_new_key, affected.last_new_key)


def _add_linked_traces(
    connection: duckdb.DuckDBPyConnection, changed: pa.Table, first: int, last: int
) -> AffectedTraces:
    table = fetch_table(connection, _read_sql("affected_traces.sql"), {"first": first, "last": last}, changed)
    return _make_affected_traces(table, first, last)


def _make_affected_traces(table: pa.Table, first: int, last: int) -> AffectedTraces:
    min_key, max_key = pc.min(table["first_key"]).as_py(), pc.max(table["last_key"]).as_py()
    if last:
        min_key, max_key = (min(first, first if min_key is None else min_key), max(last, max_key or last))
    return AffectedTraces(table, min_key or 0, max_key or 0, first, last)


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
    attempts_before, counts_redirects = attributes.read_attempts_before()
    operation = attributes.read("messaging_operation")
    rpc_attempt = pc.and_(
        pc.starts_with(get_single_chunk(spans["name"]), "Attempt."),
        pc.not_equal(kinds, _SERVER),
    )
    is_receive = pc.and_(pc.equal(kinds, _CLIENT), pc.equal(operation, _RECEIVE).fill_null(False))
    kinds_found = pc.if_else(rpc_attempt, _CLIENT, kinds)
    extracted = {
        "exported_kind": kinds,
        "kind": pc.if_else(pc.and_(is_receive, get_single_chunk(spans["has_links"])), _CONSUMER, kinds_found),
        "rpc_attempt": rpc_attempt,
        "http_outcome": map_distinct_texts(attributes.read("http_status"), classify_http_status, pa.uint8()),
        "rpc_outcome": map_distinct_texts(attributes.read("rpc_status"), classify_rpc_status, pa.uint8()),
        "peer_name": attributes.read("peer_name"),
        "system": pc.coalesce(attributes.read("db_system"), attributes.read("messaging_system")),
        "gen_ai_provider": attributes.read("gen_ai_provider"),
        **read_addresses(attributes),
        "attempts_before": attempts_before,
        "counts_redirects": counts_redirects,
        "messaging_operation": operation,
        **{
            name: attributes.read(name)
            for name in (
                "messaging_system",
                "destination",
            )
        },
        "message_key": make_message_keys(attributes, get_single_chunk(spans["service"])),
        "has_error_type": attributes.has_any("error_type"),
        "has_http_method": attributes.has_any("http_method"),
        "has_url": attributes.has_any("url", "url_path"),
        "is_db": attributes.has_any("db_system"),
        "is_messaging": attributes.has_any("messaging_system", "destination"),
        "is_rpc": attributes.has_any("rpc_system", "rpc_service", "rpc_status"),
        "is_http": attributes.has_any("http_method", "url", "http_status"),
    }
    return pa.table({**dict(zip(spans.column_names, spans.columns, strict=True)), **extracted})


@cache
def _read_sql(name: str) -> str:
    return resources.files("spanproof.collector.topology").joinpath("sql", name).read_text(encoding="utf-8")
