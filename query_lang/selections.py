"""Selections as SQL: the rows of spans or calls that are meant, within the traces in the table ``selected``.

``selected(trace_id, settled, trusting)``: ``settled`` says that nothing more is to come; ``trusting``, that rows
count although a span still to come might change their place (true once settled, or when time is up).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.conditions import Conditions, Parameters, Row, Value, matches_name, matches_service
from spanproof.query_lang.constants import Bindings

EVERY_TRACE = "(SELECT DISTINCT trace_id, true AS settled, true AS trusting FROM tree)"
# Part of each span's time that its children take, overlaps counted once and clipped to the span.
COVERED = """(
    SELECT parent_key, sum(greatest(0, till_ns - greatest(from_ns, coalesce(before_ns, from_ns)))) AS covered_ns
    FROM (
        SELECT *, max(till_ns) OVER (
            PARTITION BY parent_key ORDER BY from_ns, till_ns ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before_ns
        FROM (
            SELECT
                t.parent_key, greatest(t.start_ns, parent.start_ns) AS from_ns,
                least(t.end_ns, parent.end_ns) AS till_ns
            FROM tree t
            JOIN {traces} sel ON sel.trace_id = t.trace_id
            JOIN tree parent ON parent.span_key = t.parent_key
        )
        WHERE till_ns > from_ns
    )
    GROUP BY parent_key
)"""


@dataclass(slots=True)
class Rows:
    """A selection's rows: ``FROM`` and ``WHERE``, and the SQL of what claims need of each row."""

    row: Row
    tables: list[str]
    where: list[str]
    trace: str
    witness: str  # a list of span keys
    start: str
    end: str
    parameters: Parameters
    bindings: Bindings
    direct: Mapping[str, Value] = field(default_factory=dict)  # functions that have a column of their own
    others: list[Row] = field(default_factory=list)  # further rows that conditions speak of
    conditions: Conditions = field(init=False)

    def __post_init__(self) -> None:
        self.conditions = Conditions(self.row, self.parameters, self.bindings)

    def value(self, function: str, arguments: tuple[s.Expression, ...] = ()) -> Value:
        """Return what a function of a selection yields for each row."""
        if function in self.direct:
            return self.direct[function]
        if function in ("count", "rate"):
            return Value("1", "number")
        if function == "values":
            return self.conditions.value(arguments[1])
        return self.conditions.value(s.Name("error" if function == "error_rate" else function, arguments[0].at))

    def select(self, columns: str, *where: str) -> str:
        """Return the whole ``SELECT``; only now is known which tables the columns need."""
        tables = [*self.tables, *self._joins()]
        conditions = " AND ".join([*self.where, *where]) or "true"
        return f"SELECT {columns} FROM {' '.join(tables)} WHERE {conditions}"

    def _joins(self) -> list[str]:
        joins = []
        for row in (self.row, *self.others):
            joins += joins_of(row, self.parameters)
        return joins


def joins_of(row: Row, parameters: Parameters) -> list[str]:
    """Return the joins that the conditions about `row` turned out to need."""
    joins = []
    if "call" in row.joined:
        joins.append(f"JOIN calls {row.place}_call ON {row.place}_call.call_key = {row.place}.call_key")
    for span in row.spans:
        if span in row.joined and span in row.joins:
            joins.append(row.joins[span])
        if "resource" in row.joined:
            holder = row.place if row.row == "span" else span
            joins.append(f"LEFT JOIN resources {span}_resource ON {span}_resource.resource_key = {holder}.resource_key")
        if "scope" in row.joined:
            joins.append(f"LEFT JOIN scopes {span}_scope ON {span}_scope.scope_key = {span}.scope_key")
        if "self_time" in row.joined:
            covered = COVERED.format(traces=parameters.traces)
            joins.append(f"LEFT JOIN {covered} {span}_covered ON {span}_covered.parent_key = {row.place}.span_key")
    return joins


def span_row(span: str, place: str) -> Row:
    """Return the row of a span that stands in ``tree`` under `place`, and is joined as `span` where it is needed."""
    return Row("span", (span,), place, joins={span: f"JOIN spans {span} ON {span}.span_key = {place}.span_key"})


def from_traces(table: str, place: str, parameters: Parameters) -> tuple[str, list[str]]:
    """Return the rows of a table that belong to the traces meant, and the conditions under which they count."""
    if parameters.traces == EVERY_TRACE:
        return f"{table} {place}", []
    return (
        f"{parameters.traces} sel JOIN {table} {place} ON {place}.trace_id = sel.trace_id",
        [f"(sel.trusting OR {place}.definite)"],
    )


def select_traces(parameters: Parameters, bindings: Bindings, *, by_roots: bool) -> Rows:
    """Return one row per selected trace: from its first start to its last end, in error where its root is.

    `by_roots` looks at roots alone, which is less work, and enough where rows are but counted.
    """
    spans = "tree t ON t.trace_id = sel.trace_id" + (" AND t.depth = 0" if by_roots else "")
    return Rows(
        row=Row("span", (), "whole"),
        tables=[
            "(SELECT sel.trace_id, min(t.start_ns) AS start_ns, max(t.end_ns) AS end_ns,"
            " coalesce(bool_or(t.error) FILTER (t.depth = 0), false) AS error, arg_min(t.span_key, t.depth) AS root_key"
            f" FROM {parameters.traces} sel LEFT JOIN {spans} GROUP BY sel.trace_id) whole"
        ],
        where=[],
        trace="whole.trace_id",
        witness="[whole.root_key]",
        start="whole.start_ns",
        end="whole.end_ns",
        parameters=parameters,
        bindings=bindings,
        direct={
            "duration": Value("(whole.end_ns - whole.start_ns)", "duration"),
            "error_rate": Value("whole.error", "boolean"),
        },
    )


def select(node: s.Selection, parameters: Parameters, bindings: Bindings) -> Rows:
    """Return the rows of a selection."""
    if isinstance(node, s.Call):
        return _select_calls(node, parameters, bindings)
    table, counts = from_traces("tree", "t", parameters)
    rows = Rows(
        row=span_row("s", "t"),
        tables=[table],
        where=["t.is_entry", *counts] if node.spans == "entry" else [],
        trace="t.trace_id",
        witness="[t.span_key]",
        start="t.start_ns",
        end="t.end_ns",
        parameters=parameters,
        bindings=bindings,
    )
    rows.where += match_span(node, "t", rows.conditions)
    return rows


def match_span(node: s.Target, place: str, conditions: Conditions) -> list[str]:
    """Return the conditions under which a span, which stands in ``tree`` under `place`, is the target."""
    parameters, bindings = conditions.parameters, conditions.bindings
    where = []
    if node.service is not None:
        where.append(matches_service(f"{place}.service", node.service, parameters, bindings))
    if node.operation is not None:
        where.append(matches_name(f"{place}.name", node.operation, parameters, bindings))
    if node.where is not None:
        where.append(conditions.condition(node.where))
    return where


def call_row(place: str, *, attempts: bool) -> Row:
    """Return the row of a call whose client's and server's spans stand under ``client`` and ``server``."""
    joins = {span: f"LEFT JOIN spans {span} ON {span}.span_key = {place}.{span}_key" for span in ("client", "server")}
    return Row("call", ("client", "server"), place, attempts, joins)


def _select_calls(node: s.Call, parameters: Parameters, bindings: Bindings) -> Rows:
    table = "exchanges" if node.attempts else "calls"
    source, counts = from_traces(table, "c", parameters)
    rows = Rows(
        row=call_row("c", attempts=node.attempts),
        tables=[source],
        where=[
            *{"->": ["NOT c.async"], "~>": ["c.async"]}.get(node.arrow, []),
            *counts,
            *(["c.attempt IS NOT NULL"] if node.attempts else []),
        ],
        trace="c.trace_id",
        witness="[CASE WHEN c.arrived THEN c.server_key ELSE coalesce(c.client_key, c.server_key) END]"
        if node.attempts
        else "[coalesce(c.client_key, c.server_key)]",
        start="c.start_ns",
        end="c.end_ns",
        parameters=parameters,
        bindings=bindings,
    )
    rows.where += match_call(node, "c", rows)
    return rows


def match_call(node: s.Call, place: str, rows: Rows) -> list[str]:
    """Return the conditions under which a call is meant; the caller's own are about its entry span."""
    parameters, bindings = rows.parameters, rows.bindings
    where = []
    if node.caller.service is not None:
        where.append(matches_service(f"{place}.caller", node.caller.service, parameters, bindings))
    if node.caller.operation is not None or node.caller.where is not None:
        rows.tables.append(f"JOIN tree asking_place ON asking_place.span_key = {place}.caller_entry")
        asking = Conditions(span_row("asking", "asking_place"), parameters, bindings)
        rows.others.append(asking.row)
        where += match_span(
            s.Target("entry", None, node.caller.operation, node.caller.where, node.caller.at), "asking_place", asking
        )
    if node.callee.service is not None:
        where.append(matches_service(f"{place}.callee", node.callee.service, parameters, bindings))
    if node.callee.operation is not None:
        where.append(matches_name(f"{place}.operation", node.callee.operation, parameters, bindings))
    if node.callee.where is not None:
        where.append(rows.conditions.condition(node.callee.where))
    return where


def row_kind(node: s.Selection) -> v.Row:
    """Return what a condition about the selection is about."""
    return "call" if isinstance(node, s.Call) else "span"


def is_stable(node: s.Selection, *expressions: s.Expression | None) -> bool:
    """Tell whether a row, once definite, stays what it is while spans are still to come.

    A logical call may gain another attempt, which then speaks for it; so only its being there is stable.
    """
    if isinstance(node, s.Call) and not node.attempts:
        return all(part is None for part in (node.caller.where, node.callee.where, *expressions))
    targets = (node.caller, node.callee) if isinstance(node, s.Call) else (node,)
    conditions = [target.where for target in targets] + list(expressions)
    return not any(
        isinstance(part, s.Name) and part.text in v.UNSETTLED_FIELDS
        for condition in conditions
        if condition is not None
        for part in s.walk(condition)
    )
