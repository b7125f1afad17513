"""Reader of stored spans as OTLP, in the order of arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanproof.collector.otlp.encoder import encode_spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    import duckdb
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

_SPANS_PER_REQUEST = 2000


def read_requests(cursor: duckdb.DuckDBPyConnection, trace_ids: Sequence[UUID] | None = None) -> Iterator[TracesData]:
    """Yield the spans of these traces, or of all, as OTLP: at most 2000 spans per message."""
    condition = "true" if trace_ids is None else "trace_id IN (SELECT unnest(?::UUID[]))"
    parameters = [] if trace_ids is None else [list(trace_ids)]
    numbered_sql = (
        f"SELECT span_key, (row_number() OVER (ORDER BY span_key) - 1) // ? AS part FROM spans WHERE {condition}"  # noqa: S608 (fixed texts)
    )
    parts = cursor.execute(
        f"SELECT min(span_key), max(span_key) FROM ({numbered_sql}) GROUP BY part ORDER BY part",  # noqa: S608 (fixed texts)
        [_SPANS_PER_REQUEST, *parameters],
    ).fetchall()
    for part in parts:
        yield _read_request(cursor, f"span_key BETWEEN ? AND ? AND {condition}", [*part, *parameters])


def _read_request(cursor: duckdb.DuckDBPyConnection, condition: str, parameters: list[Any]) -> TracesData:
    """Return the spans that match `condition` as one message."""
    resources = _read_by_key(cursor, "resource", condition, parameters)
    scopes = _read_by_key(cursor, "scope", condition, parameters)
    spans = _fetch_rows(cursor, f"FROM spans WHERE {condition} ORDER BY span_key", parameters)
    return encode_spans(spans, resources, scopes)


def _read_by_key(
    cursor: duckdb.DuckDBPyConnection, name: str, condition: str, parameters: list[Any]
) -> dict[int, dict[str, Any]]:
    """Return the resources or scopes of these spans by their keys."""
    key = f"{name}_key"
    sql = f"FROM {name}s WHERE {key} IN (SELECT {key} FROM spans WHERE {condition})"  # noqa: S608 (fixed texts)
    return {row[key]: row for row in _fetch_rows(cursor, sql, parameters)}


def _fetch_rows(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
    cursor.execute(sql, parameters)
    names = [str(column[0]) for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
