"""``in OP P of traces``: the verdict on each trace, and the values that the share can still reach."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct, field

from spanproof.assertions.findings.comparators import COMPARATORS
from spanproof.assertions.findings.finding_counts import HAS_DROPPED_SQL, IS_UNSAMPLED_SQL, Finding, read_samples
from spanproof.query_lang.sql.plan import Plan

if TYPE_CHECKING:
    import duckdb

# State of one trace. ``open``: can still pass or fail; ``nothing``: has nothing to judge; ``coming``: nothing yet.
TraceState: TypeAlias = Literal["pass", "fail", "open", "nothing", "coming"]

# The findings of each trace.
_PER_TRACE_SQL: Final = """
    SELECT sel.trace_id, sel.settled, count(f.trace_id) > 0 AS has_findings, bool_and(f.ok) AS ok,
        coalesce(bool_or(f.ok IS NULL) FILTER (f.trace_id IS NOT NULL), false) AS undecided,
        coalesce(bool_and({stable}), false) AS stable,
        coalesce(bool_or(NOT f.ok AND (sel.settled OR {stable})), false) AS fails, {sign} AS sign,
        sel.trace_id IN (SELECT trace_id FROM spans s SEMI JOIN selected USING (trace_id) WHERE {lossy}) AS lossy,
        coalesce(min(f.rank), 0) AS rank, arg_min(
            {{'value': f.value, 'witness': f.witness, 'note': f.note}}, (f.rank, f.witness, f.value)
        ) FILTER (NOT f.ok) AS sample
    FROM selected sel LEFT JOIN ({findings}) f ON f.trace_id = sel.trace_id
    GROUP BY sel.trace_id, sel.settled
"""
# The number of traces with the same result.
_COUNTED_SQL: Final = """
SELECT settled, has_findings, ok, undecided, stable, fails, sign, lossy, count(*) AS n,
    arg_min(
        {{'trace_id': trace_id, 'value': sample.value, 'witness': sample.witness, 'note': sample.note}},
        (rank, trace_id), 3
    )
FROM ({per_trace})
GROUP BY ALL
"""
_LISTED_SQL: Final = """
SELECT settled, has_findings, ok, undecided, stable, fails, sign, lossy, list(trace_id) FROM ({per_trace}) GROUP BY ALL
"""


class TraceCounts(Struct):
    """Number of traces for which the claim holds, and number of traces in each state."""

    holds: int = 0  # so far
    undecided: int = 0  # settled traces that stay open
    states: Counter[TraceState] = field(default_factory=Counter)
    samples: dict[bool, tuple[Finding, ...]] = field(default_factory=dict)

    @property
    def incomplete(self) -> int:
        """Number of traces that may still be decided when more spans arrive."""
        return self.states["open"] + self.states["coming"] - self.undecided

    @property
    def n(self) -> int:
        """Number of traces with something to judge."""
        return self.states["pass"] + self.states["fail"] + self.states["open"]

    def find_possible_results(self, comparator: str, limit: Decimal) -> set[bool | None]:
        """Return the reachable results: comparison true, comparison false, or None for no trace to judge."""
        holds = COMPARATORS[comparator]
        possible: set[bool | None] = set()
        for coming in range(self.states["coming"] + 1):
            undecided = self.states["open"] + coming
            total = self.states["pass"] + self.states["fail"] + undecided
            if not total:
                possible.add(None)
                continue
            passing = [self.states["pass"], self.states["pass"] + undecided]
            exact = limit * total
            if exact == int(exact) and passing[0] <= exact <= passing[1]:
                passing.append(int(exact))
            possible |= {holds(Decimal(count), exact) for count in passing}
        return possible


def judge_traces(connection: duckdb.DuckDBPyConnection, plan: Plan) -> TraceCounts:
    """Judge each of the selected traces by itself."""
    traces = TraceCounts()
    sql = _COUNTED_SQL.format(per_trace=_compile_per_trace(plan))
    for *result, n, samples in connection.execute(sql, plan.parameters).fetchall():
        state, holds = _judge_result(plan, *result)
        traces.states[state] += n
        is_settled = result[0]
        traces.undecided += n * (state == "open" and is_settled)
        if state in ("pass", "fail", "open"):
            traces.holds += n * holds
            traces.samples[holds] = traces.samples.get(holds, ()) + read_samples(holds, samples)
    return traces


def list_traces(connection: duckdb.DuckDBPyConnection, plan: Plan) -> dict[TraceState, dict[UUID, bool]]:
    """Judge each of the selected traces by itself; return those in each state, with whether each is settled."""
    states: defaultdict[TraceState, dict[UUID, bool]] = defaultdict(dict)
    sql = _LISTED_SQL.format(per_trace=_compile_per_trace(plan))
    for *result, traces in connection.execute(sql, plan.parameters).fetchall():
        state, _ = _judge_result(plan, *result)
        states[state] |= dict.fromkeys(traces, result[0])
    return states


def _compile_per_trace(plan: Plan) -> str:
    sign = "any_value(f.note[3])" if plan.family == "number" else "NULL"
    lossy_spans = f"{HAS_DROPPED_SQL} OR {IS_UNSAMPLED_SQL}" if plan.depends_on_absence else "false"
    return _PER_TRACE_SQL.format(findings=plan.sql, stable=plan.stability_sql, sign=sign, lossy=lossy_spans)


def _judge_result(
    plan: Plan,
    settled: bool,
    has_findings: bool,
    ok: bool | None,
    undecided: bool,
    stable: bool,
    fails: bool,
    sign: int | None,
    lossy: bool,
) -> tuple[TraceState, bool]:
    """Return the state of traces with the same result, and whether the claim holds for them so far."""
    holds = ok is not False and bool(ok or plan.family == "none") and not undecided
    if plan.family == "number":
        state = _judge_number(plan, settled=settled, ok=ok, sign=sign)
    else:
        state = _judge_findings(
            plan,
            settled=settled,
            has_findings=has_findings,
            holds=holds,
            undecided=undecided,
            stable=stable,
            fails=fails,
        )
    return ("open" if state == "pass" and lossy else state), holds


def _judge_number(plan: Plan, *, settled: bool, ok: bool | None, sign: int | None) -> TraceState:
    if ok is None:
        return "nothing" if settled or plan.trend == "fixed" else "coming"
    if settled or plan.is_decided(sign, holds=ok):
        return "pass" if ok else "fail"
    return "open"


def _judge_findings(
    plan: Plan, *, settled: bool, has_findings: bool, holds: bool, undecided: bool, stable: bool, fails: bool
) -> TraceState:
    """Return the state of a trace from its findings; `fails` means a violation that cannot change."""
    if fails and plan.family != "some":
        return "fail"
    if undecided and plan.is_empty_if_undecided:
        has_findings = False
    if not has_findings and plan.family != "none":
        return "nothing" if settled else "coming"
    if undecided:
        return "open"
    if settled:
        return "pass" if holds else "fail"
    return "pass" if plan.family == "some" and holds and stable else "open"
