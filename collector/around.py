"""Which traces are to be derived because of new spans, and all their spans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.collector import semconv
from spanproof.collector.columns import fetch, whole
from spanproof.collector.facts import Facts, convert, read_answer
from spanproof.collector.fresh import Fresh

if TYPE_CHECKING:
    import duckdb

# The traces of spans with keys from `$first` to `$last`, as ``sql/around.sql`` has them where there are no links.
_GROWN: Final = """
SELECT grown.*, first_key, last_key
FROM (
    SELECT trace_id, true AS dirty, bool_or(kind IN (2, 5) AND len(links) > 0) AS links
    FROM spans WHERE span_key BETWEEN $first AND $last
    GROUP BY trace_id
) grown
LEFT JOIN traces USING (trace_id)
"""
# values of gRPC's status, of an old and a new convention
_RPC_WELL: Final = pa.array(["0", "OK"], pa.string())
_UNKNOWN: Final = pa.scalar(None, pa.bool_())


@dataclass(frozen=True, slots=True)
class Around:
    """Traces to derive (``dirty``), and those tied to them by links.

    `table` has a row for each, with ``trace_id`` and ``dirty``. The keys of their spans are from `first` to `last`.
    """

    table: pa.Table
    first: int
    last: int

    @property
    def dirty(self) -> pa.Table:
        """Those to derive."""
        return self.table.filter(self.table["dirty"])

    @property
    def known(self) -> bool:
        """Something was derived of some of them before."""
        unknown: int = self.table["first_key"].null_count
        return unknown < len(self.table)


def find_around(connection: duckdb.DuckDBPyConnection, first: int, last: int, *, linked: bool) -> Around:
    """Find the traces to derive because of spans with keys from `first` to `last`; `linked`: there are links."""
    keys = {"first": first, "last": last}
    table = fetch(connection, _query("around.sql") if linked else _GROWN, keys)
    if not linked and pc.any(table["links"]).as_py():
        table = fetch(connection, _query("around.sql"), keys)
    firsts, lasts = pc.min(table["first_key"]).as_py(), pc.max(table["last_key"]).as_py()
    return Around(table, first if firsts is None else min(first, firsts), last if lasts is None else max(last, lasts))


def read_spans(connection: duckdb.DuckDBPyConnection, around: Around) -> Fresh:
    """Read all spans of these traces."""
    keys = {"first": around.first, "last": around.last}
    return Fresh(add_facts(fetch(connection, _query("fresh.sql"), keys, around.table)))


def add_facts(spans: pa.Table) -> pa.Table:
    """Add, beside what ``sql/fresh.sql`` reads of spans, what matters of their attributes."""
    facts = Facts(whole(spans["keys"]), whole(spans["texts"]))
    kinds = whole(spans["kind"])
    # gRPC's own instrumentation has a span for each attempt, of no certain kind; each is an exit span (gRFC A66, A72)
    rpc_attempt = pc.and_(pc.starts_with(whole(spans["name"]), "Attempt."), pa.array(facts.has("attempts_before")))
    rpc_status = facts.read("rpc_status")
    added = {
        "kind_sent": kinds,
        "kind": pc.if_else(rpc_attempt, pa.scalar(semconv.SPAN_KINDS["client"], kinds.type), kinds),
        "rpc_attempt": rpc_attempt,
        "answer": convert(facts.read("http_status"), read_answer, pa.uint8()),
        "rpc_failed": pc.if_else(rpc_status.is_valid(), pc.invert(pc.is_in(rpc_status, _RPC_WELL)), _UNKNOWN),
        "peer": pc.coalesce(facts.read("peer_name"), facts.read("db_system"), facts.read("messaging_system")),
        "server_address": facts.read("server_address"),
        "server_port": facts.read("server_port"),
        "counter": pc.coalesce(facts.read_whole("resend_count"), facts.read_whole("attempts_before")),
        "deliveries": facts.read_whole("deliveries"),
        "says_why": facts.has("error_type"),
        "is_db": facts.has("db_system"),
        "is_messaging": facts.has("messaging_system"),
        "is_rpc": facts.has("rpc_system", "rpc_service"),
        "is_http": facts.has("http_method", "url", "http_status"),
    }
    return pa.table({**dict(zip(spans.column_names, spans.columns, strict=True)), **added})


@cache
def _query(name: str) -> str:
    return resources.files("spanproof.collector").joinpath("sql", name).read_text(encoding="utf-8")
