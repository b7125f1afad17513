"""``in OP P of traces``: the claim judged for each trace by itself, and what the share can still become."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from spanproof.assertions.findings.comparators import COMPARATORS
from spanproof.assertions.findings.finding_counts import HAS_DROPPED_SQL, IS_UNSAMPLED_SQL, Finding, read_samples
from spanproof.query_lang.compile.plan import Plan

if TYPE_CHECKING:
    import duckdb

# Of one trace. ``open``: it can still become either; ``nothing``: there is nothing to judge; ``coming``: not yet.
TraceFate: TypeAlias = Literal["pass", "fail", "open", "nothing", "coming"]

# What was found in each trace, and how many traces there are of a kind.
PER_TRACE_SQL: Final = """
SELECT settled, found, ok, untold, lasts, fails, sign, lossy, count(*) AS n,
    arg_min(
        {{'trace_id': trace_id, 'value': shown.value, 'witness': shown.witness, 'note': shown.note}},
        (rank, trace_id), 3
    )
FROM (
    SELECT sel.trace_id, sel.settled, count(f.trace_id) > 0 AS found, bool_and(f.ok) AS ok,
        coalesce(bool_or(f.ok IS NULL) FILTER (f.trace_id IS NOT NULL), false) AS untold,
        coalesce(bool_and({stable}), false) AS lasts,
        coalesce(bool_or(NOT f.ok AND (sel.settled OR {stable})), false) AS fails, {sign} AS sign,
        sel.trace_id IN (SELECT trace_id FROM spans s SEMI JOIN selected USING (trace_id) WHERE {lossy}) AS lossy,
        coalesce(min(f.rank), 0) AS rank, arg_min(
            {{'value': f.value, 'witness': f.witness, 'note': f.note}}, (f.rank, f.witness, f.value)
        ) FILTER (NOT f.ok) AS shown
    FROM selected sel LEFT JOIN ({findings}) f ON f.trace_id = sel.trace_id
    GROUP BY sel.trace_id, sel.settled
)
GROUP BY ALL
"""


@dataclass(slots=True)
class TraceCounts:
    """How many traces the claim holds for, and how many there are of each fate."""

    holds: int = 0  # so far
    fates: Counter[TraceFate] = field(default_factory=Counter)
    samples: dict[bool, tuple[Finding, ...]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many traces there is something to judge in."""
        return self.fates["pass"] + self.fates["fail"] + self.fates["open"]

    def find_possible_results(self, comparator: str, wanted: Decimal) -> set[bool | None]:
        """Return whether the share can come to satisfy the comparison, to miss it, or to be one of nothing."""
        holds = COMPARATORS[comparator]
        possible: set[bool | None] = set()
        for coming in range(self.fates["coming"] + 1):
            free = self.fates["open"] + coming
            total = self.fates["pass"] + self.fates["fail"] + free
            if not total:
                possible.add(None)
                continue
            passing = [self.fates["pass"], self.fates["pass"] + free]
            exact = wanted * total
            if exact == int(exact) and passing[0] <= exact <= passing[1]:
                passing.append(int(exact))
            possible |= {holds(Decimal(count), exact) for count in passing}
        return possible


def judge_traces(connection: duckdb.DuckDBPyConnection, plan: Plan) -> TraceCounts:
    """Judge each of the selected traces by itself."""
    sign = "any_value(f.note[3])" if plan.family == "number" else "NULL"
    lossy_spans = f"{HAS_DROPPED_SQL} OR {IS_UNSAMPLED_SQL}" if plan.depends_on_absence else "false"
    sql = PER_TRACE_SQL.format(findings=plan.sql, stable=plan.stability_sql, sign=sign, lossy=lossy_spans)
    traces = TraceCounts()
    for settled, found, ok, untold, lasts, fails, sign_, lossy, n, samples in connection.execute(
        sql, plan.parameters
    ).fetchall():
        holds = ok is not False and (ok or plan.family == "none") and not untold
        if plan.family == "number":
            fate = _judge_number(plan, settled=settled, ok=ok, sign=sign_)
        else:
            fate = _judge_findings(
                plan, settled=settled, found=found, holds=holds, untold=untold, lasts=lasts, fails=fails
            )
        if fate == "pass" and lossy:
            fate = "open"
        traces.fates[fate] += n
        if fate in ("pass", "fail", "open"):
            traces.holds += n * holds
            traces.samples[holds] = traces.samples.get(holds, ()) + read_samples(holds, samples)
    return traces


def _judge_number(plan: Plan, *, settled: bool, ok: bool | None, sign: int | None) -> TraceFate:
    if ok is None:
        return "nothing" if settled or plan.trend == "fixed" else "coming"
    if settled or plan.is_decided(sign, holds=ok):
        return "pass" if ok else "fail"
    return "open"


def _judge_findings(
    plan: Plan, *, settled: bool, found: bool, holds: bool, untold: bool, lasts: bool, fails: bool
) -> TraceFate:
    """Judge a trace by what was found in it; ``fails``: a violation that stays."""
    if fails and plan.family != "some":
        return "fail"
    if untold and plan.is_empty_if_undecided:
        found = False
    if not found and plan.family != "none":
        return "nothing" if settled else "coming"
    if untold:
        return "open"
    if settled:
        return "pass" if holds else "fail"
    return "pass" if plan.family == "some" and holds and lasts else "open"
