"""Which traces are to be derived because of new spans, and all their spans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector.calls.extracted_attributes import ExtractedAttributes, classify_http_status, map_distinct_texts
from spanproof.collector.calls.span_batch import SpanBatch
from spanproof.collector.otlp import semantic_conventions as semconv
from spanproof.collector.storage.arrow_columns import fetch_table, get_single_chunk

if TYPE_CHECKING:
    import duckdb

# The traces of spans with keys from `$first` to `$last`: ``sql/affected_traces.sql`` for a store without links.
_AFFECTED_WITHOUT_LINKS_SQL: Final = """
SELECT grown.*, first_key, last_key
FROM (
    SELECT trace_id, true AS dirty, bool_or(kind IN (2, 5) AND len(links) > 0) AS links
    FROM spans WHERE span_key BETWEEN $first AND $last
    GROUP BY trace_id
) grown
LEFT JOIN traces USING (trace_id)
"""
# values of gRPC's status, of an old and a new convention
_RPC_OK_STATUSES: Final = pa.array(["0", "OK"], pa.string())
_NULL_BOOL: Final = pa.scalar(None, pa.bool_())


@dataclass(frozen=True, slots=True)
class AffectedTraces:
    """Traces to derive (``dirty``), and those tied to them by links.

    `table` has a row for each, with ``trace_id`` and ``dirty``. The keys of their spans are from `first` to `last`.
    """

    table: pa.Table
    first_key: int
    last_key: int

    @property
    def dirty(self) -> pa.Table:
        """Those to derive."""
        return self.table.filter(self.table["dirty"])

    @property
    def has_derived_rows(self) -> bool:
        """Something was derived of some of them before."""
        unknown: int = self.table["first_key"].null_count
        return unknown < len(self.table)


def find_affected_traces(
    connection: duckdb.DuckDBPyConnection, first: int, last: int, *, has_links: bool
) -> AffectedTraces:
    """Find the traces to derive because of spans with keys from `first` to `last`; `linked`: there are links."""
    keys = {"first": first, "last": last}
    table = fetch_table(
        connection, _read_sql("affected_traces.sql") if has_links else _AFFECTED_WITHOUT_LINKS_SQL, keys
    )
    if not has_links and pc.any(table["links"]).as_py():
        table = fetch_table(connection, _read_sql("affected_traces.sql"), keys)
    firsts, lasts = pc.min(table["first_key"]).as_py(), pc.max(table["last_key"]).as_py()
    return AffectedTraces(
        table, first if firsts is None else min(first, firsts), last if lasts is None else max(last, lasts)
    )


def read_span_batch(connection: duckdb.DuckDBPyConnection, affected: AffectedTraces) -> SpanBatch:
    """Read all spans of these traces."""
    keys = {"first": affected.first_key, "last": affected.last_key}
    return SpanBatch(
        add_extracted_attributes(fetch_table(connection, _read_sql("new_spans.sql"), keys, affected.table))
    )


def add_extracted_attributes(spans: pa.Table) -> pa.Table:
    """Add, beside what ``sql/new_spans.sql`` reads of spans, what matters of their attributes."""
    facts = ExtractedAttributes(get_single_chunk(spans["keys"]), get_single_chunk(spans["texts"]))
    kinds = get_single_chunk(spans["kind"])
    # gRPC's own instrumentation has a span for each attempt, of no certain kind; each is an exit span (gRFC A66, A72)
    rpc_attempt = pc.and_(
        pc.starts_with(get_single_chunk(spans["name"]), "Attempt."), pa.array(facts.has_any("attempts_before"))
    )
    rpc_status = facts.read("rpc_status")
    added = {
        "kind_sent": kinds,
        "kind": pc.if_else(rpc_attempt, pa.scalar(semconv.SPAN_KINDS["client"], kinds.type), kinds),
        "rpc_attempt": rpc_attempt,
        "answer": map_distinct_texts(facts.read("http_status"), classify_http_status, pa.uint8()),
        "rpc_failed": pc.if_else(rpc_status.is_valid(), pc.invert(pc.is_in(rpc_status, _RPC_OK_STATUSES)), _NULL_BOOL),
        "peer": pc.coalesce(facts.read("peer_name"), facts.read("db_system"), facts.read("messaging_system")),
        "server_address": facts.read("server_address"),
        "server_port": facts.read("server_port"),
        "counter": pc.coalesce(facts.read_int("resend_count"), facts.read_int("attempts_before")),
        "deliveries": facts.read_int("deliveries"),
        "says_why": facts.has_any("error_type"),
        "is_db": facts.has_any("db_system"),
        "is_messaging": facts.has_any("messaging_system"),
        "is_rpc": facts.has_any("rpc_system", "rpc_service"),
        "is_http": facts.has_any("http_method", "url", "http_status"),
    }
    return pa.table({**dict(zip(spans.column_names, spans.columns, strict=True)), **added})


@cache
def _read_sql(name: str) -> str:
    return resources.files("spanproof.collector.calls").joinpath("sql", name).read_text(encoding="utf-8")
