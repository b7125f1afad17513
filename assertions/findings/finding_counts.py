"""Counts of the findings of a plan, and samples of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.query_lang.sql.plan import Plan

if TYPE_CHECKING:
    import duckdb

FINDING_COUNTS_SQL: Final = """
SELECT {group} AS grp, f.ok, coalesce(sel.settled, $settled) AS settled, {stable} AS stable, count(*) AS n,
    arg_min(
        {{'trace_id': f.trace_id, 'value': f.value, 'witness': f.witness, 'note': f.note, 'limit': {limit}}},
        (coalesce(f.rank, 0), f.trace_id, f.witness, f.value), 3  -- a total order makes the samples deterministic
    ),
    count(DISTINCT f.trace_id)
FROM ({findings}) f LEFT JOIN selected sel ON sel.trace_id = f.trace_id
GROUP BY ALL
"""


# Conditions on a span `s`: parts of it were dropped; it was not sampled, so other spans of its trace may be missing.
HAS_DROPPED_SQL: Final = "s.dropped_attributes_count + s.dropped_events_count + s.dropped_links_count > 0"
IS_UNSAMPLED_SQL: Final = "s.flags & 255 > 0 AND s.flags & 1 = 0"


GroupKey: TypeAlias = tuple[str | None, ...]  # the texts of a group's fields; empty if there are no groups


class Finding(Struct, frozen=True):
    """One row of a plan's findings. ``limit`` is the other side of a comparison of numbers."""

    ok: bool | None
    trace_id: UUID | None
    value: Any
    witness: list[int] | None
    note: list[int] | None
    limit: float | None = None


class FindingCounts(Struct, frozen=True):
    """Numbers of findings that hold, fail or are undecided (``empty``); ``final_…`` counts those that cannot change.

    ``traces`` is the number of traces with findings of the most frequent kind: all of them, if all findings agree.
    """

    holds: int = 0
    fails: int = 0
    final_holds: int = 0
    final_fails: int = 0
    empty: int = 0
    traces: int = 0
    samples: tuple[Finding, ...] = field(default=())

    @property
    def n(self) -> int:
        """Number of findings that hold or fail."""
        return self.holds + self.fails

    def find_sample(self, *, ok: bool | None) -> Finding | None:
        """Return the first sample that holds, fails or is undecided (None)."""
        return next((finding for finding in self.samples if finding.ok is ok), None)


def count_findings(
    connection: duckdb.DuckDBPyConnection, plan: Plan, *, by: bool, all_settled: bool
) -> dict[GroupKey, FindingCounts]:
    """Count the findings of a plan per group. Without groups or findings, return one group with an empty key."""
    sql = FINDING_COUNTS_SQL.format(
        findings=plan.sql,
        group="f.grp" if by else "NULL",
        stable=plan.stability_sql,
        limit="f.limit_value" if plan.has_limit else "NULL",
    )
    groups: dict[GroupKey, FindingCounts] = {}
    rows = connection.execute(sql, {**plan.parameters, "settled": all_settled}).fetchall()
    for key, ok, settled, stable, n, samples, traces in rows:
        group = read_group_key(key) if by else ()
        counts = groups.get(group, FindingCounts())
        settled = settled and (all_settled or not plan.depends_on_all_traces)
        if ok is None:
            counts = replace(counts, empty=counts.empty + n)
        elif ok:
            final = settled or (stable and plan.family != "number")
            counts = replace(counts, holds=counts.holds + n, final_holds=counts.final_holds + n * final)
        else:
            final = settled or (stable and plan.family in ("all", "none"))
            counts = replace(counts, fails=counts.fails + n, final_fails=counts.final_fails + n * final)
        groups[group] = replace(
            counts, samples=counts.samples + read_samples(ok, samples), traces=max(counts.traces, traces)
        )
    return dict(sorted(groups.items(), key=lambda item: rank_group(item[0]))) or {(): FindingCounts()}


def read_group_key(key: str | list[str | None] | None) -> GroupKey:
    """Return the key of a group as a query returns it: a text, or a list of the texts of several fields."""
    return tuple(key) if isinstance(key, list) else (key,)


def rank_group(key: GroupKey) -> tuple[str, ...]:
    """Return a key by which groups are sorted."""
    return tuple(text or "" for text in key)


def read_samples(ok: bool | None, rows: Iterable[dict[str, Any]] | None) -> tuple[Finding, ...]:
    """Return the findings in the samples of a query row."""
    return tuple(Finding(ok=ok, **row) for row in rows or ())
