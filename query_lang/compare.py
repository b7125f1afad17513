"""Comparisons over whole selections: bags of values, and numbers made of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.conditions import Parameters, Value, arithmetic, comparison, constant, membership, negative
from spanproof.query_lang.constants import Bindings, evaluate, is_constant, number
from spanproof.query_lang.critical import select_shares
from spanproof.query_lang.plan import Plan, Trend
from spanproof.query_lang.selections import Rows, is_stable, select, select_traces
from spanproof.query_lang.types import Types, as_selection
from spanproof.query_lang.vocabulary import Type

SIMPLE: Final = {
    "min": "min(value)",
    "max": "max(value)",
    "avg": "avg(value)",
    "sum": "coalesce(sum(value), 0)",
    "stddev": "stddev_samp(value)",
    "distinct": "nullif(count(DISTINCT value), 0)",
    "count": "count(*)",
    "error_rate": "count(*) FILTER (value) / nullif(count(*), 0)",
}
ZERO_WHEN_EMPTY: Final = ("count", "sum")
ONE_NUMBER: Final = ("count", "error_rate", "rate")  # functions that are aggregates of the rows themselves
# DuckDB finds the rank of a share that is a DECIMAL in whole numbers; of so many digits, for up to 10^12 values.
_EXACT_DIGITS: Final = 6
TRENDS: Final[dict[str, Trend]] = {"count": "up", "max": "up", "min": "down", "distinct": "up"}
OPPOSITE: Final[dict[Trend, Trend]] = {"fixed": "fixed", "up": "down", "down": "up", "unknown": "unknown"}


def compile_comparison(
    node: s.Compare | s.OneOf,
    bindings: Bindings,
    *,
    per_trace: bool = False,
    by: s.Name | None = None,
    traces: str = "selected",
) -> Plan:
    """Compile a comparison.

    With `per_trace` its numbers are made, and compared, for each trace by itself; with `by`, for each value of a
    field, which the findings then bear as ``grp``.
    """
    per: Literal["trace_id", "grp"] | None = "trace_id" if per_trace else "grp" if by else None
    numbers_from = "selected" if per_trace or _bag(node) else traces
    return _Comparison(node, bindings, per, by, Parameters(traces=numbers_from)).plan()


def compile_bag(node: s.Function, bindings: Bindings, traces: str) -> tuple[str, dict[str, object]]:
    """Return the query for the values that a rate or a quantile is made of, one row each: ``value``."""
    made = _Comparison(s.Compare("==", node, node, node.at), bindings, None, None, Parameters(traces=traces))
    bag, _ = made.bag_of(node.name, node.arguments if node.name in v.AGGREGATES else (node,))
    return bag, made.parameters.values


def compile_number(
    node: s.Expression, bindings: Bindings, by: s.Name | None, step_ns: int | None, traces: str
) -> tuple[str, dict[str, object]]:
    """Return the query for one number of each group: ``grp, at_ns, value, n``.

    ``grp`` is the value of the field `by`, ``at_ns`` the beginning of a step of time, of `step_ns` nanoseconds since
    the Unix epoch; both are NULL where nothing is grouped by. ``n`` is of how many values the number is made.
    """
    per: Literal["grp"] | None = "grp" if by is not None or step_ns is not None else None
    made = _Comparison(s.Compare("==", node, node, node.at), bindings, per, by, Parameters(traces=traces), step_ns)
    value = made.emit(node).sql
    key, at = ("sel.grp.key", "sel.grp.at_ns") if step_ns is not None else ("sel.grp", "NULL")
    source = f"({made.groups()})" if per else "(SELECT NULL AS grp)"
    counts = [f"{name}.n" for name in made.aggregates]
    n = f"coalesce(greatest({', '.join(counts)}), 0)" if counts else "0"
    found = f"SELECT {key} AS grp, {at} AS at_ns, {value} AS value, {n} AS n FROM {source} sel{made.joins()}"
    return made.with_steps(f"{found} ORDER BY at_ns, grp"), made.parameters.values


class _Comparison:
    def __init__(
        self,
        node: s.Compare | s.OneOf,
        bindings: Bindings,
        per: Literal["trace_id", "grp"] | None,
        by: s.Name | None,
        parameters: Parameters,
        step_ns: int | None = None,
    ) -> None:
        self.node = node
        self.bindings = bindings
        self.per = per  # numbers are made for each value of this column of the bags
        self.by = by
        self.step_ns = step_ns  # groups are of steps of time, too
        self.parameters = parameters
        self.steps: list[str] = []  # of the WITH clause
        self.aggregates: list[str] = []  # names of those steps that hold a number
        self.must_exist: list[str] = []  # those among them that mean nothing over nothing
        self.stable = True
        self.thing: Value | None = None  # how to read one value of the bag that is compared

    def plan(self) -> Plan:
        left_node = self.node.left if isinstance(self.node, s.Compare) else self.node.value
        function = _bag(self.node)
        rows = things = None
        if function is not None:
            rows = self.rows(function)
            things = rows.value(function.name, function.arguments)
            self.thing = Value("sel.thing", things.kind)
        left = self.emit(left_node)
        sign = "NULL"
        if isinstance(self.node, s.Compare):
            right = self.emit(self.node.right)
            holds = comparison(self.node.operator, left, right)
            if {left.kind, right.kind} <= {"number", "duration", "fraction", "rate"}:
                sign = f"sign({left.sql} - {right.sql})"
        else:
            right = Value("NULL", "nothing")
            holds = membership(left, self.node, lambda option, _: self.emit(option))
            if function is None:
                sign = self.above_all(left, self.node)
        judged = " AND ".join(f"{name}.value IS NOT NULL" for name in self.must_exist) or "true"
        holds = f"CASE WHEN {judged} THEN {holds} END"
        shown = Type(Types().of(left_node, self.bindings.scope).kind)
        if shown.kind == "any" and left.kind != "nothing":
            shown = Type(left.kind)
        if rows is not None and things is not None:
            return self.of_bag(rows, things, left, right, holds, shown)
        return self.of_numbers(left, holds, sign, shown)

    def above_all(self, left: Value, node: s.OneOf) -> str:
        """Return the SQL of 1 where a number lies above all options, which it can then not fall back to."""
        highest = [self.emit(option.high if isinstance(option, s.Range) else option) for option in node.options]
        if not {left.kind, *(option.kind for option in highest)} <= {"number", "duration", "fraction", "rate"}:
            return "NULL"
        return f"sign({left.sql} - greatest({', '.join(option.sql for option in highest)}))"

    def of_bag(self, rows: Rows, things: Value, left: Value, right: Value, holds: str, shown: Type) -> Plan:
        """Every value must hold; the worst one is shown."""
        on_left = isinstance(self.node, s.OneOf) or _bag(self.node.left) is not None
        value = left if on_left else right
        operator = self.node.operator if isinstance(self.node, s.Compare) else "in"
        most = operator in ("<", "<=") if on_left else operator in (">", ">=")
        numeric = value.kind not in ("any", "text")
        rank = f"-({value.sql})" if numeric and most else value.sql if numeric and ">" in operator else "sel.start_ns"
        bag = rows.select(
            f"{rows.trace} AS trace_id, {things.sql} AS thing, {rows.witness} AS witness, {rows.start} AS start_ns,"
            f" {self.group_of(rows)} AS grp",
            f"{things.sql} IS NOT NULL",
        )
        findings = (
            f"SELECT sel.trace_id, {holds} AS ok, {value.sql} AS value, sel.witness, {rank} AS rank,"
            f" NULL::BIGINT[] AS note, sel.grp FROM ({bag}) sel{self.joins()}"
        )
        untold = "there is nothing to compare with"
        rests = bool(self.aggregates) and self.per != "trace_id"
        stable = self.stable and not self.aggregates  # a number compared with may still move
        return Plan(
            self.with_steps(findings),
            self.parameters.values,
            "all",
            shown,
            stable,
            rests_on_all=rests,
            untold=untold,
            nothing_if_untold=True,
        )

    def of_numbers(self, left: Value, holds: str, sign: str, shown: Type) -> Plan:
        """Compare numbers, once or for each trace; ``note`` is [n, hits, sign of left minus right]."""
        first = self.aggregates[0] if self.aggregates else None
        witness = f"{first}.witness" if first else "NULL::BIGINT[]"
        counts = f"coalesce({first}.n, 0), {first}.hits" if first else "0, 0"
        trace = "sel.trace_id" if self.per == "trace_id" else "NULL::UUID"
        group = "sel.grp" if self.per == "grp" else "NULL"
        source = {"trace_id": "selected", "grp": f"({self.groups()})"}.get(self.per or "", "(SELECT 1)")
        findings = (
            f"SELECT {trace} AS trace_id, {group} AS grp, {holds} AS ok, {left.sql} AS value, {witness} AS witness,"
            f" 0 AS rank, [{counts}, {sign}]::BIGINT[] AS note FROM {source} sel{self.joins()}"
        )
        trend, operator = "unknown", ""
        if isinstance(self.node, s.Compare):
            trend = _minus(self.trend(self.node.left), self.trend(self.node.right))
            operator = self.node.operator
        elif all(is_constant(option) for option in self.node.options):
            trend, operator = self.trend(self.node.value), "not in" if self.node.negated else "in"
        if not self.aggregates:
            trend = "fixed"
        return Plan(
            self.with_steps(findings),
            self.parameters.values,
            "number",
            shown,
            self.stable,
            trend=trend,  # type: ignore[arg-type]  # a Trend by construction
            operator=operator,
        )

    def trend(self, node: s.Expression) -> Trend:
        """Return how a number can move while spans are still to come."""
        if is_constant(node):
            return "fixed"
        if isinstance(node, s.Function):
            return TRENDS.get(node.name, "unknown")
        if isinstance(node, s.Arithmetic) and node.operator in ("+", "-"):
            right = self.trend(node.right)
            return _minus(self.trend(node.left), OPPOSITE[right] if node.operator == "+" else right)
        if isinstance(node, s.Arithmetic):
            moving, factor = node.left, node.right
            if node.operator == "*" and is_constant(moving):
                moving, factor = factor, moving
            if is_constant(factor) and number(evaluate(factor, self.bindings)) > 0:
                return self.trend(moving)
        return "unknown"

    def groups(self) -> str:
        """Return the query for the groups that occur in any bag."""
        bags = [f"SELECT DISTINCT grp FROM bag{number}" for number in range(len(self.aggregates))]
        return " UNION ".join(bags) or "SELECT NULL AS grp"

    def group_of(self, rows: Rows) -> str:
        """Return the SQL of what `rows` are grouped by: a field, or also a step of time."""
        key = f"CAST({rows.conditions.value(self.by).sql} AS VARCHAR)" if self.by is not None else "NULL::VARCHAR"
        if self.step_ns is None:
            return key
        return f"{{'key': {key}, 'at_ns': {rows.start} // {self.step_ns} * {self.step_ns}}}"

    def with_steps(self, findings: str) -> str:
        return f"WITH {', '.join(self.steps)} {findings}" if self.steps else findings

    def emit(self, node: s.Expression) -> Value:
        """Return the SQL of one side."""
        if is_constant(node):
            return constant(evaluate(node, self.bindings), self.parameters)
        if isinstance(node, s.Arithmetic):
            return arithmetic(node.operator, self.emit(node.left), self.emit(node.right))
        if isinstance(node, s.Negative):
            return negative(self.emit(node.value))
        if isinstance(node, s.Name):
            return self.baseline()
        assert isinstance(node, s.Function)  # noqa: S101 (checked before)
        if node.name in v.AGGREGATES:
            return self.aggregate(node.name, node.arguments)
        if v.SELECTION_FUNCTIONS[node.name].many:
            assert self.thing is not None  # noqa: S101 (there is one bag here)
            return self.thing
        return self.aggregate(node.name, (node,))

    def baseline(self) -> Value:
        """Return the other side's expression over the baseline traces."""
        assert isinstance(self.node, s.Compare)  # noqa: S101 (checked before)
        here = [isinstance(part, s.Name) and part.text == "baseline" for part in s.walk(self.node.left)]
        other = self.node.right if any(here) else self.node.left
        before, self.parameters = self.parameters, self.parameters.about("baseline")
        value = self.emit(other)
        self.parameters = before
        return value

    def rows(self, function: s.Function) -> Rows:
        """Return the rows that a function of a selection looks at."""
        first = function.arguments[0]
        if isinstance(first, s.Name) and first.text == "traces":
            self.stable = self.stable and function.name == "count"
            return select_traces(
                self.parameters, self.bindings, by_roots=function.name == "count" and self.step_ns is None
            )
        if function.name == "critical":
            self.stable = False
            assert isinstance(first, s.Name | s.Text)  # noqa: S101 (checked before)
            return select_shares(first, self.parameters, self.bindings)
        selection = as_selection(first)
        assert selection is not None  # noqa: S101 (checked before)
        looked_at = list(function.arguments[1:])
        if function.name != "count":
            looked_at.append(s.Name(function.name, function.at))
        self.stable = self.stable and is_stable(selection, *looked_at)
        return select(selection, self.parameters, self.bindings)

    def bag_of(self, name: str, arguments: tuple[s.Expression, ...]) -> tuple[str, Value]:
        """Return the query for the values that an aggregate is made of."""
        values = arguments[-1]
        function = _bag(values) or values
        assert isinstance(function, s.Function)  # noqa: S101 (checked before)
        bag = self.rows(function)
        outer, self.thing = self.thing, bag.value(function.name, function.arguments)
        value = self.thing if function.name in ONE_NUMBER else self.emit(values)
        self.thing = outer
        read = f"TRY_CAST({value.sql} AS DOUBLE)" if value.kind == "any" and name != "distinct" else value.sql
        group = f", {self.group_of(bag)} AS grp" if self.per == "grp" else ""
        columns = f"{bag.trace} AS trace_id, {read} AS value, {bag.witness} AS witness, {bag.start} AS start_ns{group}"
        return bag.select(columns, f"{read} IS NOT NULL"), value

    def aggregate(self, name: str, arguments: tuple[s.Expression, ...]) -> Value:
        """Add the steps that make one number of a bag; return how to read it."""
        bag, step = f"bag{len(self.aggregates)}", f"number{len(self.aggregates)}"
        query, value = self.bag_of(name, arguments)
        filtered = " FILTER (value)" if name == "error_rate" else ""
        key, group = (f"{self.per}, ", f" GROUP BY {self.per}") if self.per else ("", "")
        made = f"{key}count(*) AS n, count(*){filtered} AS hits, {self.formula(name, arguments, bag)} AS value"
        self.steps.append(f"{bag} AS ({query})")
        if name in (*ONE_NUMBER, "distinct"):
            shown = f"flatten(arg_min(witness, start_ns, 5){filtered})"
            self.steps.append(f"{step} AS (SELECT {made}, {shown} AS witness FROM {bag}{group})")
        else:  # what has the value that was made shows it
            same = f" AND b.{self.per} IS NOT DISTINCT FROM made.{self.per}" if self.per else ""
            self.steps += [
                f"made_{step} AS (SELECT {made} FROM {bag}{group})",
                f"{step} AS (SELECT {key}n, hits, value, arg_min(witness, start_ns) AS witness FROM (SELECT made.*,"
                f" b.witness, b.start_ns FROM made_{step} made LEFT JOIN {bag} b ON b.value = made.value{same})"
                " GROUP BY ALL)",
            ]
        self.aggregates.append(step)
        if name in ZERO_WHEN_EMPTY:
            read = f"coalesce({step}.value, 0)"
        else:
            self.must_exist.append(step)
            read = f"{step}.value"
        if name in ONE_NUMBER:
            return Value(read, v.SELECTION_FUNCTIONS[name].kind)
        return Value(read, "number" if name == "distinct" or value.kind == "any" else value.kind)

    def formula(self, name: str, arguments: tuple[s.Expression, ...], bag: str) -> str:
        """Return the SQL of an aggregate. Quantiles are nearest-rank: the value at rank ⌈p·n⌉, in whole numbers.

        A rate is per second of the time from the first start to the last end of the traces.
        """
        if name in SIMPLE:
            return SIMPLE[name]
        if name == "rate" and self.step_ns is not None:
            return f"count(*) * 1000000000 / {self.step_ns}"
        if name == "rate":
            mine = f" AND s.trace_id = {bag}.trace_id" if self.per == "trace_id" else ""
            lasted = (
                "SELECT max(s.end_ns) - min(s.start_ns) FROM spans s"
                f" WHERE s.trace_id IN (SELECT trace_id FROM {self.parameters.traces}){mine}"
            )
            return f"nullif(count(*), 0) * 1000000000 / nullif(({lasted}), 0)"
        share = _percentage(name, arguments) / 100
        if -int(share.as_tuple().exponent) <= _EXACT_DIGITS:
            return f"quantile_disc(value, {share:f}::DECIMAL(18, {_EXACT_DIGITS}))"
        top, bottom = share.as_integer_ratio()
        return f"list_sort(list(value))[(count(*) * {top} + {bottom - 1}) // {bottom}]"

    def joins(self) -> str:
        """Return the joins of each number to what is compared with it."""
        on = f"{{0}}.{self.per} IS NOT DISTINCT FROM sel.{self.per}" if self.per else "true"
        return "".join(f" LEFT JOIN {name} ON {on.format(name)}" for name in self.aggregates)


def _bag(node: object) -> s.Function | None:
    """Return the function that yields many values here, not counting those inside aggregates."""
    if isinstance(node, s.Function):
        if node.name in v.AGGREGATES:
            return None
        if node.name in v.SELECTION_FUNCTIONS:
            return node if v.SELECTION_FUNCTIONS[node.name].many else None
    if isinstance(node, s.Target | s.Call):
        return None
    return next((found for child in s.children(node) if (found := _bag(child))), None)


def percentage_of(function: s.Function) -> Decimal:
    """Return which percentile ``p50`` … ``p99`` and ``p(99.9, …)`` ask for."""
    return _percentage(function.name, function.arguments)


def _percentage(name: str, arguments: tuple[s.Expression, ...]) -> Decimal:
    percent = v.quantile(name)
    if percent is not None:
        return Decimal(percent)
    assert isinstance(arguments[0], s.Number)  # noqa: S101 (checked before)
    return arguments[0].value


def _minus(left: Trend, right: Trend) -> Trend:
    """Return the trend of left minus right."""
    other = OPPOSITE[right]
    if left == "fixed":
        return other
    return left if other in ("fixed", left) else "unknown"
