"""Comparisons over whole selections as SQL: bags of values, and the numbers aggregated from them."""

from __future__ import annotations

from typing import Final, Literal

from spanproof.query_lang.check.constants import Bindings, evaluate, is_constant
from spanproof.query_lang.check.types import TypeChecker, to_selection
from spanproof.query_lang.compile.critical_path import select_critical_path_time
from spanproof.query_lang.compile.trends import infer_trend, subtract_trends
from spanproof.query_lang.sql.conditions import (
    SqlValue,
    compile_arithmetic,
    compile_constant,
    compile_membership,
    compile_negative,
    compile_operator,
)
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.query_lang.sql.selections import (
    SelectedRows,
    is_stable,
    select_counted_traces,
    select_requests_with_calls,
    select_rows,
    select_trace_rows,
)
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.vocabulary import ValueType

AGGREGATE_SQL: Final = {
    "min": "min(value)",
    "max": "max(value)",
    "avg": "avg(value)",
    "sum": "coalesce(sum(value), 0)",
    "stddev": SQL.sample_deviation("value"),
    "distinct": "nullif(count(DISTINCT value), 0)",
    "count": "count(*)",
    "error_rate": "count(*) FILTER (value) / nullif(count(*), 0)",
}
ZERO_WHEN_EMPTY: Final = ("count", "sum", "rate")
SCALAR_FUNCTIONS: Final = ("count", "error_rate", "rate")  # functions that aggregate the rows themselves


def compile_comparison(
    node: s.Compare | s.OneOf,
    bindings: Bindings,
    *,
    per_trace: bool = False,
    by: tuple[s.Name, ...] = (),
    traces: str = "selected",
) -> Plan:
    """Compile a comparison.

    With `per_trace`, numbers are aggregated and compared per trace. With `by`, they are aggregated per values of
    these fields, which are the column ``grp`` of the findings. `traces` is the table of the traces that numbers are
    aggregated from.
    """
    per: Literal["trace_id", "grp"] | None = "trace_id" if per_trace else "grp" if by else None
    numbers_from = "selected" if per_trace or _find_multivalued_function(node) else traces
    return _ComparisonCompiler(
        node, bindings, per, by, SqlParameters(traces=numbers_from, reading=bindings.reading)
    ).compile_plan()


def compile_values(
    node: s.Function, by: tuple[s.Name, ...], bindings: Bindings, traces: str
) -> tuple[str, dict[str, object]]:
    """Return the query for the values that a number aggregates: ``trace_id, value, witness, start_ns, grp``."""
    compiler = _ComparisonCompiler(
        s.Compare("==", node, node, node.at),
        bindings,
        "grp",
        by,
        SqlParameters(traces=traces, reading=bindings.reading),
    )
    bag, _ = compiler.compile_aggregated_values(node.name, node.arguments if node.name in v.AGGREGATES else (node,))
    return bag, compiler.parameters.values


def compile_number(
    node: s.Expression, bindings: Bindings, by: tuple[s.Name, ...], step_ns: int | None, traces: str
) -> tuple[str, dict[str, object]]:
    """Return the query for one number per group: ``grp, at_ns, value, n``.

    ``grp`` is the value of the field `by`, or the list of the values of several. ``at_ns`` is the start of a time step
    of `step_ns` nanoseconds, in nanoseconds since the Unix epoch. Each is NULL if there is no such grouping. ``n`` is
    the number of values that ``value`` aggregates.
    """
    per: Literal["grp"] | None = "grp" if by or step_ns is not None else None
    compiler = _ComparisonCompiler(
        s.Compare("==", node, node, node.at),
        bindings,
        per,
        by,
        SqlParameters(traces=traces, reading=bindings.reading),
        step_ns,
    )
    value = compiler.compile_value(node).sql
    key, at_sql = ("sel.grp.key", "sel.grp.at_ns") if step_ns is not None else ("sel.grp", "NULL")
    source = f"({compiler.compile_groups()})" if per else "(SELECT NULL AS grp)"
    counts = [f"{name}.n" for name in compiler.aggregates]
    n = f"coalesce(greatest({', '.join(counts)}), 0)" if counts else "0"
    select = (
        f"SELECT {key} AS grp, {at_sql} AS at_ns, {value} AS value, {n} AS n"
        f" FROM {source} sel{compiler.compile_number_joins()}"
    )
    return compiler.add_with_clause(f"{select} ORDER BY at_ns, grp"), compiler.parameters.values


class _ComparisonCompiler:
    def __init__(
        self,
        node: s.Compare | s.OneOf,
        bindings: Bindings,
        per: Literal["trace_id", "grp"] | None,
        by: tuple[s.Name, ...],
        parameters: SqlParameters,
        step_ns: int | None = None,
    ) -> None:
        self.node = node
        self.bindings = bindings
        self.per = per  # column of the bags that numbers are grouped by
        self.by = by
        self.step_ns = step_ns  # numbers are also grouped by time steps of this length
        self.parameters = parameters
        self.steps: list[str] = []  # common table expressions of the WITH clause
        self.aggregates: list[str] = []  # names of the steps that hold a number
        self.must_exist: list[str] = []  # names of the aggregates that are undefined for an empty bag
        self.stable = True
        self.item: SqlValue | None = None  # SQL of one value of the bag that is compared
        self.limit = "NULL"  # SQL of the other side of a comparison of numbers

    def compile_plan(self) -> Plan:
        left_node = self.node.left if isinstance(self.node, s.Compare) else self.node.value
        function = _find_multivalued_function(self.node)
        rows = item = None
        if function is not None:
            rows = self.select_function_rows(function)
            item = rows.compile_value(function.name, function.arguments)
            self.item = SqlValue("sel.item", item.kind)
        left = self.compile_value(left_node)
        sign = "NULL"
        if isinstance(self.node, s.Compare):
            right = self.compile_value(self.node.right)
            holds = compile_operator(self.node.operator, left, right)
            if {left.kind, right.kind} <= {"number", "duration", "fraction", "rate"}:
                sign = f"sign({left.sql} - {right.sql})"
                self.limit = SQL.to_double(right.sql)
        else:
            right = SqlValue("NULL", "nothing")
            holds = compile_membership(left, self.node, lambda option, _: self.compile_value(option))
            if function is None:
                sign = self.compile_sign_above_options(left, self.node)
        numeric = {"number", "duration", "fraction", "rate"}
        must_exist = [f"{name}.value IS NOT NULL" for name in self.must_exist]
        if function is None and {left.kind, right.kind} <= numeric:  # a ratio with the denominator 0 is missing
            must_exist += [f"{side.sql} IS NOT NULL" for side in (left, right)]
        judged = " AND ".join(must_exist) or "true"
        holds = f"CASE WHEN {judged} THEN {holds} END"
        shown = ValueType(TypeChecker().infer(left_node, self.bindings.scope).kind)
        if shown.kind == "any" and left.kind != "nothing":
            shown = ValueType(left.kind)
        if rows is not None and item is not None:
            return self.make_values_plan(rows, item, left, right, holds, shown)
        return self.make_number_plan(left, holds, sign, shown)

    def compile_sign_above_options(self, left: SqlValue, node: s.OneOf) -> str:
        """Return the SQL of the sign of a number minus the highest option, which a growing number cannot return to."""
        highest = [
            self.compile_value(option.high if isinstance(option, s.ValueRange) else option) for option in node.options
        ]
        if not {left.kind, *(option.kind for option in highest)} <= {"number", "duration", "fraction", "rate"}:
            return "NULL"
        return f"sign({left.sql} - greatest({', '.join(option.sql for option in highest)}))"

    def make_values_plan(
        self, rows: SelectedRows, item: SqlValue, left: SqlValue, right: SqlValue, holds: str, shown: ValueType
    ) -> Plan:
        """Return the plan in which each value must satisfy the comparison. The worst value has the lowest rank."""
        on_left = isinstance(self.node, s.OneOf) or _find_multivalued_function(self.node.left) is not None
        value = left if on_left else right
        operator = self.node.operator if isinstance(self.node, s.Compare) else "in"
        upper = operator in ("<", "<=") if on_left else operator in (">", ">=")
        numeric = value.kind not in ("any", "text")
        rank = f"-({value.sql})" if numeric and upper else value.sql if numeric and ">" in operator else "sel.start_ns"
        bag = rows.build_select(
            f"{rows.trace_id_sql} AS trace_id, {item.sql} AS item, {rows.witness_sql} AS witness,"
            f" {rows.start_sql} AS start_ns, {self.compile_group_key(rows)} AS grp",
            f"{item.sql} IS NOT NULL",
        )
        findings = (
            f"SELECT sel.trace_id, {holds} AS ok, {value.sql} AS value, sel.witness, {rank} AS rank,"
            f" {SQL.null('integers')} AS note, sel.grp FROM ({bag}) sel{self.compile_number_joins()}"
        )
        reason = "there is nothing to compare with"
        depends_on_numbers = bool(self.aggregates) and self.per != "trace_id"
        stable = self.stable and not self.aggregates  # a number on the other side can still change
        return Plan(
            self.add_with_clause(findings),
            self.parameters.values,
            "all",
            shown,
            stable,
            depends_on_all_traces=depends_on_numbers,
            undecided_reason=reason,
            is_empty_if_undecided=True,
        )

    def make_number_plan(self, left: SqlValue, holds: str, sign: str, shown: ValueType) -> Plan:
        """Return the plan that compares numbers, once or per trace. ``note`` is [n, hits, sign of left minus right]."""
        first = self.aggregates[0] if self.aggregates else None
        witness = f"{first}.witness" if first else SQL.null("integers")
        counts = f"coalesce({first}.n, 0), {first}.hits" if first else "0, 0"
        trace = "sel.trace_id" if self.per == "trace_id" else SQL.null("uuid")
        group = "sel.grp" if self.per == "grp" else "NULL"
        source = {"trace_id": "selected", "grp": f"({self.compile_groups()})"}.get(self.per or "", "(SELECT 1)")
        findings = (
            f"SELECT {trace} AS trace_id, {group} AS grp, {holds} AS ok, {left.sql} AS value, {witness} AS witness,"
            f" 0 AS rank, {SQL.cast(f'[{counts}, {sign}]', 'integers')} AS note, {self.limit} AS limit_value"
            f" FROM {source} sel{self.compile_number_joins()}"
        )
        trend, operator = "unknown", ""
        if isinstance(self.node, s.Compare):
            trend = subtract_trends(
                infer_trend(self.node.left, self.bindings), infer_trend(self.node.right, self.bindings)
            )
            operator = self.node.operator
        elif all(is_constant(option) for option in self.node.options):
            trend, operator = infer_trend(self.node.value, self.bindings), "not in" if self.node.negated else "in"
        if not self.aggregates:
            trend = "fixed"
        return Plan(
            self.add_with_clause(findings),
            self.parameters.values,
            "number",
            shown,
            self.stable,
            trend=trend,  # type: ignore[arg-type]  # a Trend by construction
            has_limit=True,
            operator=operator,
        )

    def compile_groups(self) -> str:
        """Return the query for the groups that occur in at least one bag."""
        bags = [f"SELECT DISTINCT grp FROM bag{number}" for number in range(len(self.aggregates))]
        return " UNION ".join(bags) or "SELECT NULL AS grp"

    def compile_group_key(self, rows: SelectedRows) -> str:
        """Return the SQL of the group key of `rows`: its fields, optionally with a time step."""
        key = rows.compile_group_key(self.by)
        if self.step_ns is None:
            return key
        return f"{{'key': {key}, 'at_ns': {rows.start_sql} // {self.step_ns} * {self.step_ns}}}"

    def add_with_clause(self, findings: str) -> str:
        return f"WITH {', '.join(self.steps)} {findings}" if self.steps else findings

    def compile_value(self, node: s.Expression) -> SqlValue:
        """Return the SQL of one operand."""
        if is_constant(node):
            return compile_constant(evaluate(node, self.bindings), self.parameters)
        if isinstance(node, s.Arithmetic):
            return compile_arithmetic(node.operator, self.compile_value(node.left), self.compile_value(node.right))
        if isinstance(node, s.Negative):
            return compile_negative(self.compile_value(node.value))
        if isinstance(node, s.Name):
            return self.compile_baseline()
        assert isinstance(node, s.Function)  # noqa: S101 (checked before)
        if node.name in v.AGGREGATES:
            return self.add_aggregate(node.name, node.arguments)
        if v.SELECTION_FUNCTIONS[node.name].is_many:
            assert self.item is not None  # noqa: S101 (there is one bag here)
            return self.item
        return self.add_aggregate(node.name, (node,))

    def compile_baseline(self) -> SqlValue:
        """Return the SQL of the other operand, evaluated over the baseline traces."""
        assert isinstance(self.node, s.Compare)  # noqa: S101 (checked before)
        is_on_left = [isinstance(part, s.Name) and part.text == "baseline" for part in s.walk(self.node.left)]
        other = self.node.right if any(is_on_left) else self.node.left
        own_parameters, self.parameters = self.parameters, self.parameters.with_traces("baseline")
        value = self.compile_value(other)
        self.parameters = own_parameters
        return value

    def select_function_rows(self, function: s.Function) -> SelectedRows:
        """Return the rows that a function of a selection reads."""
        first = function.arguments[0]
        if isinstance(first, s.Name) and first.text == "traces":
            self.stable = self.stable and function.name == "count"
            if function.name == "count" and self.step_ns is None:
                return select_counted_traces(self.parameters, self.bindings)
            return select_trace_rows(self.parameters, self.bindings)
        if function.name == "critical":
            self.stable = False
            assert isinstance(first, s.Name | s.Text)  # noqa: S101 (checked before)
            return select_critical_path_time(first, self.parameters, self.bindings)
        selection = to_selection(first)
        assert selection is not None  # noqa: S101 (checked before)
        if function.name == "calls":
            self.stable = False
            assert isinstance(selection, s.CallSelection)  # noqa: S101 (checked before)
            return select_requests_with_calls(selection, self.parameters, self.bindings)
        read_expressions = list(function.arguments[1:])
        if function.name != "count":
            read_expressions.append(s.Name(function.name, function.at))
        self.stable = self.stable and is_stable(selection, *read_expressions)
        return select_rows(selection, self.parameters, self.bindings)

    def compile_aggregated_values(self, name: str, arguments: tuple[s.Expression, ...]) -> tuple[str, SqlValue]:
        """Return the query for the values of an aggregate, and the SQL of one value."""
        values = arguments[-1]
        function = _find_multivalued_function(values) or values
        assert isinstance(function, s.Function)  # noqa: S101 (checked before)
        bag = self.select_function_rows(function)
        outer_item, self.item = self.item, bag.compile_value(function.name, function.arguments)
        value = self.item if function.name in SCALAR_FUNCTIONS else self.compile_value(values)
        self.item = outer_item
        read = SQL.to_double(value.sql) if value.kind == "any" and name != "distinct" else value.sql
        group = f", {self.compile_group_key(bag)} AS grp" if self.per == "grp" else ""
        columns = f"{bag.trace_id_sql} AS trace_id, {read} AS value, {bag.witness_sql} AS witness"
        columns += f", {bag.start_sql} AS start_ns{group}"
        return bag.build_select(columns, f"{read} IS NOT NULL"), value

    def add_aggregate(self, name: str, arguments: tuple[s.Expression, ...]) -> SqlValue:
        """Add the steps that aggregate a bag to one number. Return the SQL of the number."""
        bag, step = f"bag{len(self.aggregates)}", f"number{len(self.aggregates)}"
        query, value = self.compile_aggregated_values(name, arguments)
        filtered = " FILTER (value)" if name == "error_rate" else ""
        key, group = (f"{self.per}, ", f" GROUP BY {self.per}") if self.per else ("", "")
        aggregate = self.compile_aggregate_sql(name, arguments, bag)
        raw = f"{key}count(*) AS n, count(*){filtered} AS hits, {aggregate} AS value"
        self.steps.append(f"{bag} AS ({query})")
        if name in (*SCALAR_FUNCTIONS, "distinct"):
            witness = SQL.flatten(SQL.first_by("witness", "start_ns", 5) + filtered)
            self.steps.append(f"{step} AS (SELECT {raw}, {witness} AS witness FROM {bag}{group})")
        else:  # the witness is the row that has the aggregated value
            same_group = f" AND b.{self.per} IS NOT DISTINCT FROM raw.{self.per}" if self.per else ""
            self.steps += [
                f"raw_{step} AS (SELECT {raw} FROM {bag}{group})",
                f"{step} AS (SELECT {key}n, hits, value, {SQL.first_by('witness', 'start_ns')} AS witness"
                " FROM (SELECT raw.*,"
                f" b.witness, b.start_ns FROM raw_{step} raw LEFT JOIN {bag} b ON b.value = raw.value{same_group})"
                " GROUP BY ALL)",
            ]
        self.aggregates.append(step)
        if name in ZERO_WHEN_EMPTY:  # but a rate over no time is missing
            read = f"CASE WHEN coalesce({step}.n, 0) = 0 THEN 0 ELSE {step}.value END"
        else:
            self.must_exist.append(step)
            read = f"{step}.value"
        if name in SCALAR_FUNCTIONS:
            return SqlValue(read, v.SELECTION_FUNCTIONS[name].kind)
        return SqlValue(read, "number" if name == "distinct" or value.kind == "any" else value.kind)

    def compile_aggregate_sql(self, name: str, arguments: tuple[s.Expression, ...], bag: str) -> str:
        """Return the SQL of an aggregate.

        Quantiles are nearest-rank: the value at rank ⌈p·n⌉, computed in integers. A rate is per second of the window,
        or without one of the time from the first start to the last end of the traces.
        """
        if name in AGGREGATE_SQL:
            return AGGREGATE_SQL[name]
        if name == "rate" and self.step_ns is not None:
            return f"count(*) * 1000000000 / {self.step_ns}"
        window_ns = self.bindings.window_ns.get(self.parameters.traces)
        if name == "rate" and window_ns is not None and self.per != "trace_id":
            return f"count(*) * 1000000000 / {max(1, window_ns)}"
        if name == "rate":
            same_trace = f" AND s.trace_id = {bag}.trace_id" if self.per == "trace_id" else ""
            duration = (
                f"SELECT max(s.end_ns) - min(s.start_ns) FROM {self.parameters.table('topology')} s"
                f" WHERE s.trace_id IN (SELECT trace_id FROM {self.parameters.traces}){same_trace}"
            )
            return f"CASE WHEN count(*) = 0 THEN 0 ELSE count(*) * 1000000000 / nullif(({duration}), 0) END"
        return SQL.nearest_rank("value", v.read_percentage(name, arguments) / 100)

    def compile_number_joins(self) -> str:
        """Return the joins that add each number to the rows it is compared with."""
        on = f"{{0}}.{self.per} IS NOT DISTINCT FROM sel.{self.per}" if self.per else "true"
        return "".join(f" LEFT JOIN {name} ON {on.format(name)}" for name in self.aggregates)


def _find_multivalued_function(node: object) -> s.Function | None:
    """Return the function outside of aggregates that yields many values, or None."""
    if isinstance(node, s.Function):
        if node.name in v.AGGREGATES:
            return None
        if node.name in v.SELECTION_FUNCTIONS:
            return node if v.SELECTION_FUNCTIONS[node.name].is_many else None
    if isinstance(node, s.SpanSelection | s.CallSelection):
        return None
    return next((function for child in s.iter_children(node) if (function := _find_multivalued_function(child))), None)
