"""Names and values of attributes that Tempo's API offers for searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from spanproof.api.tempo.documents import TempoTypedValue
from spanproof.api.tempo.traceql_fields import INTRINSICS, TraceqlAttribute, TraceqlIntrinsic
from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS, STATUS_CODES
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.row_aliases import SqlParameters

if TYPE_CHECKING:
    import duckdb


_KEYWORDS = {"status": STATUS_CODES, "kind": SPAN_KINDS}
_TYPES = {"i": "int", "d": "float", "b": "bool"}
# TraceQL has no literals for these
_UNWRITABLE_KINDS = "('n', 'k', 'y')"


class TagFilter(Struct, frozen=True):
    """The spans whose names and values are listed: a condition on a row `s`, and the maximum number of results."""

    span_condition: str
    parameters: SqlParameters
    limit: int


def read_attribute_names(connection: duckdb.DuckDBPyConnection, scope: str, tag_filter: TagFilter) -> list[str]:
    """Return the names of the attributes of a scope, or of the intrinsic fields."""
    if scope == "intrinsic":
        return sorted(INTRINSICS)[: tag_filter.limit]
    keys = {
        "span": f"SELECT DISTINCT s.attributes.keys AS keys FROM spans s WHERE {tag_filter.span_condition}",  # noqa: S608 (values are parameters)
        "resource": f"SELECT attributes.keys AS keys FROM resources WHERE {_compile_resource_condition(tag_filter)}",  # noqa: S608 (the same)
    }[scope]
    return _fetch(connection, f"SELECT DISTINCT unnest(keys) AS name FROM ({keys}) ORDER BY name", tag_filter)  # noqa: S608 (the same)


def read_field_values(
    connection: duckdb.DuckDBPyConnection, field: TraceqlIntrinsic | TraceqlAttribute, tag_filter: TagFilter
) -> list[TempoTypedValue]:
    """Return the values of a field, with their types in TraceQL."""
    if isinstance(field, TraceqlAttribute):
        return _read_attribute_values(connection, field, tag_filter)
    if field.kind in _KEYWORDS:
        return [TempoTypedValue(type="keyword", value=word) for word in _KEYWORDS[field.kind]][: tag_filter.limit]
    if field.kind != "text" or "_id" in field.sql:
        return []  # a user does not select an id or a duration from a list
    values = f"SELECT s.trace_id, {field.sql} AS value FROM spans s WHERE {tag_filter.span_condition}"  # noqa: S608 (values are parameters)
    if field.sql.startswith("r."):
        values = (
            f"SELECT {field.sql} AS value FROM topology t JOIN spans r USING (trace_id, span_key)"  # noqa: S608 (the same)
            " WHERE t.depth = 0 AND NOT t.orphan"
            f" AND r.trace_id IN (SELECT s.trace_id FROM spans s WHERE {tag_filter.span_condition})"
        )
    texts = _fetch(connection, f"SELECT DISTINCT value FROM ({values}) WHERE value <> '' ORDER BY value", tag_filter)  # noqa: S608 (the same)
    return [TempoTypedValue(type="string", value=value) for value in texts]


def _read_attribute_values(
    connection: duckdb.DuckDBPyConnection, attribute: TraceqlAttribute, tag_filter: TagFilter
) -> list[TempoTypedValue]:
    sources = {
        "span": f"spans s WHERE {tag_filter.span_condition}",
        "resource": f"resources WHERE {_compile_resource_condition(tag_filter)}",
    }
    scopes = (attribute.scope,) if attribute.scope else ("span", "resource")
    index = f"list_position(attributes.keys, {SQL.quote(attribute.name)})"
    values = " UNION ".join(
        f"SELECT DISTINCT attributes.texts[{index}] AS value, attribute_kinds[{index}] AS kind FROM {sources[scope]}"  # noqa: S608 (quoted)
        f" AND {index} IS NOT NULL"
        for scope in scopes
    )
    rows = connection.execute(
        f"SELECT DISTINCT text, kind FROM (SELECT unnest(attribute_texts(value)) AS text, kind FROM ({values}))"  # noqa: S608 (quoted)
        f" WHERE text IS NOT NULL AND kind NOT IN {_UNWRITABLE_KINDS} ORDER BY text, kind LIMIT $limit",
        tag_filter.parameters.values | {"limit": tag_filter.limit},
    ).fetchall()
    return [TempoTypedValue(type=_TYPES.get(kind, "string"), value=text) for text, kind in rows]


def _compile_resource_condition(tag_filter: TagFilter) -> str:
    return f"resource_key IN (SELECT s.resource_key FROM spans s WHERE {tag_filter.span_condition})"  # noqa: S608 (values are parameters)


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str, tag_filter: TagFilter) -> list[str]:
    rows = connection.execute(
        f"{sql} LIMIT $limit", tag_filter.parameters.values | {"limit": tag_filter.limit}
    ).fetchall()
    return [str(value) for (value,) in rows]
