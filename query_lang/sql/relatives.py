"""Tests of spans near a span in the tree of its trace: its parent, children, ancestors, descendants and siblings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spanproof.query_lang.sql.row_aliases import ALL_TRACES_SQL, RowAliases, SqlParameters, compile_joins

_NEAR: Final[Mapping[str, str]] = {
    "parent": "{relative}.span_key = {row}.parent_key",
    "child": "{relative}.parent_key = {row}.span_key",
    "sibling": "{relative}.parent_key = {row}.parent_key AND {relative}.span_key <> {row}.span_key",
}
# From the spans that satisfy the condition, level by level to all spans below, or above, them. DuckDB has no correlated
# recursion, and the number of levels is small.
_FAR: Final[Mapping[str, str]] = {
    "ancestor": """(
        WITH RECURSIVE below AS (
            SELECT child.span_key FROM {matching} JOIN {topology} child ON child.parent_key = matching.span_key
            UNION
            SELECT child.span_key FROM below JOIN {topology} child ON child.parent_key = below.span_key
        )
        SELECT span_key FROM below
    )""",
    "descendant": """(
        WITH RECURSIVE above AS (
            SELECT matching.parent_key AS span_key FROM {matching}
            UNION
            SELECT upper.parent_key FROM above JOIN {topology} upper ON upper.span_key = above.span_key
        )
        SELECT span_key FROM above WHERE span_key IS NOT NULL
    )""",
}


def compile_relative_test(what: str, row: str, relative: RowAliases, condition: str, parameters: SqlParameters) -> str:
    """Return the SQL of whether a relative of a span satisfies `condition`, which is about the aliases `relative`.

    `row` is the alias of the span's row of ``topology``.
    """
    alias, topology = relative.alias, parameters.table("topology")
    joins = " ".join(compile_joins(relative, parameters))
    if what in _NEAR:
        link = _NEAR[what].format(relative=alias, row=row)
        return f"EXISTS (SELECT 1 FROM {topology} {alias} {joins} WHERE {link} AND {condition})"
    is_selected = (
        "true"
        if parameters.traces == ALL_TRACES_SQL
        else f"{alias}.trace_id IN (SELECT trace_id FROM {parameters.traces})"
    )
    matching = (
        f"(SELECT {alias}.span_key, {alias}.parent_key FROM {topology} {alias} {joins}"
        f" WHERE {is_selected} AND {condition}) matching"
    )
    return f"({row}.span_key IN {_FAR[what].format(matching=matching, topology=topology)})"
