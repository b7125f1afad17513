"""Conditions and values about one span, call, event or link as SQL.

A condition is true or false, never NULL: a comparison with a missing value is false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from spanproof.query_lang.check.constants import (
    Bindings,
    Constant,
    MissingValue,
    encode_attribute_text,
    evaluate,
    interpolate,
    is_constant,
    to_decimal,
)
from spanproof.query_lang.sql.duckdb_dialect import SQL
from spanproof.query_lang.sql.relatives import compile_relative_test
from spanproof.query_lang.sql.row_aliases import RowAliases, SqlParameters, make_span_aliases
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.vocabulary import ValueType

SQL_OPERATORS: Final = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
FLIPPED_OPERATORS: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
NEGATED_OPERATORS: Final = ("!=", "!~", "not in")
SPAN_ID_SQL: Final = "format('{{:016x}}', {})"
TRACE_ID_SQL: Final = "replace(CAST({} AS VARCHAR), '-', '')"


class SqlValue(Struct, frozen=True):
    """SQL expression and its kind. Kind ``any`` is a text in the storage format of attributes, to be cast as needed."""

    sql: str
    kind: v.ValueKind


class ConditionCompiler:
    """Compiler of conditions about `row` to SQL. Adds their literals to `parameters`."""

    def __init__(self, row: RowAliases, parameters: SqlParameters, bindings: Bindings) -> None:
        self.row = row
        self.parameters = parameters
        self.bindings = bindings

    def compile_condition(self, node: s.Expression) -> str:
        """Return the SQL of a condition."""
        match node:
            case s.AnyOf():
                return "(" + " OR ".join(self.compile_condition(term) for term in node.terms) + ")"
            case s.AllOf():
                return "(" + " AND ".join(self.compile_condition(term) for term in node.terms) + ")"
            case s.Not():
                return f"(NOT {self.compile_condition(node.term)})"
            case s.Compare():
                return self.compile_compare(node)
            case s.OneOf():
                return self.compile_one_of(node)
            case s.Within():
                return self._compile_within(node)
            case s.Function(name="exists"):
                return f"({self.compile_value(node.arguments[0]).sql} IS NOT NULL)"
            case _:
                return f"coalesce({self.compile_value(node).sql}, false)"

    def compile_value(self, node: s.Expression) -> SqlValue:
        """Return the SQL of a value."""
        if isinstance(node, s.Name) and (field_value := self._compile_field(node.text)):
            return field_value
        if isinstance(node, s.Arithmetic):
            return compile_arithmetic(node.operator, self.compile_value(node.left), self.compile_value(node.right))
        if isinstance(node, s.Negative):
            return compile_negative(self.compile_value(node.value))
        if isinstance(node, s.Function) and node.name in ("len", "lower", "upper"):
            return _compile_text_function(node.name, self.compile_value(node.arguments[0]))
        if isinstance(node, s.Function) and node.name == "json" and self._reads_field(node.arguments[0]):
            return SqlValue(SQL.read_json(self.compile_value(node.arguments[0]).sql, node.keys), "any")
        if isinstance(node, s.Function | s.Compare | s.OneOf | s.AnyOf | s.AllOf | s.Not | s.Within) and not (
            isinstance(node, s.Function) and node.name != "exists"
        ):
            return SqlValue(self.compile_condition(node), "boolean")
        if is_constant(node):
            return compile_constant(evaluate(node, self.bindings), self.parameters)
        raise AssertionError(f"{type(node).__name__} is not a value of a {self.row.kind}")

    def compile_compare(self, node: s.Compare) -> str:
        """Return the SQL of a comparison."""
        left = self.compile_value(node.left)
        word = self._compile_word(node.right, left)
        return compile_operator(node.operator, left, word or self.compile_value(node.right))

    def compile_one_of(self, node: s.OneOf) -> str:
        """Return the SQL of ``in`` and ``not in``."""
        return compile_membership(
            self.compile_value(node.value),
            node,
            lambda option, value: self._compile_word(option, value) or self.compile_value(option),
        )

    def _compile_word(self, node: s.Expression, other: SqlValue) -> SqlValue | None:
        words = v.ENUMERATIONS.get(other.kind)
        if words is None or not isinstance(node, s.Name) or node.text in self.bindings.variables:
            return None
        return SqlValue(self.parameters.add(words[node.text]), other.kind)

    def _reads_field(self, node: s.Expression) -> bool:
        return any(isinstance(part, s.Name) and self._compile_field(part.text) is not None for part in s.walk(node))

    def _compile_field(self, name: str) -> SqlValue | None:
        kind = v.FIELDS[self.row.kind].get(name)
        if kind is not None:
            return SqlValue(self._compile_column(name), kind)
        if name in self.bindings.variables or name in v.CONSTANTS:
            return None
        return SqlValue(self._compile_attribute(name), "any")

    def _compile_attribute(self, name: str) -> str:
        if self.row.kind in ("event", "link"):
            return SQL.attribute(f"{self.row.alias}.attributes", name)
        if name.startswith(("resource.", "scope.")):
            owner, rest = name.split(".", 1)
            self.row.needed_joins.add(owner)
            if owner == "scope" or self.row.kind == "call":
                self.row.needed_joins.update(self.row.span_aliases)
            tables = [f"{span}_{owner}" for span in self.row.span_aliases]
            if owner == "scope" and rest in ("name", "version"):
                reads = [f"{table}.{rest}" for table in tables]
            else:
                reads = [SQL.attribute(f"{table}.attributes", rest) for table in tables]
        else:
            self.row.needed_joins.update(self.row.span_aliases)
            reads = [SQL.attribute(f"{span}.attributes", name.removeprefix("span.")) for span in self.row.span_aliases]
        if len(reads) == 1:
            return reads[0]
        if self.row.is_attempt:
            first, second, *others = reads
            alias = self.row.alias
            rest = ", ".join(others)
            return (
                f"CASE WHEN {alias}.arrived THEN coalesce({second}, {first}, {rest})"
                f" ELSE coalesce({first}, {second}, {rest}) END"
            )
        return f"coalesce({', '.join(reads)})"

    def _compile_column(self, name: str) -> str:
        alias = self.row.alias
        if self.row.kind == "event":
            return f"{alias}.time_ns" if name == "time" else f"{alias}.name"
        if self.row.kind == "link":
            return (TRACE_ID_SQL if name == "trace_id" else SPAN_ID_SQL).format(f"{alias}.{name}")
        if self.row.kind == "call":
            return self._compile_call_column(name)
        (span,) = self.row.span_aliases
        if name in ("error", "depth", "service", "name", "kind"):
            return f"{alias}.{name}"
        if name == "self_time":
            self.row.needed_joins.add("self_time")
            return f"({alias}.end_ns - {alias}.start_ns - coalesce({span}_covered.covered_ns, 0))"
        topology_columns = {
            "duration": f"({alias}.end_ns - {alias}.start_ns)",
            "start": f"{alias}.start_ns",
            "end": f"{alias}.end_ns",
            "trace_id": TRACE_ID_SQL.format(f"{alias}.trace_id"),
            "root": f"({alias}.depth = 0 AND NOT {alias}.orphan)",
        }
        if name in topology_columns:
            return topology_columns[name]
        self.row.needed_joins.add(span)
        return SPAN_ID_SQL.format(f"{span}.{name}") if name in ("span_id", "parent_id") else f"{span}.{name}"

    def _compile_call_column(self, name: str) -> str:
        alias = self.row.alias
        if name == "attempts" and self.row.is_attempt:
            self.row.needed_joins.add("call")
            return f"{alias}_call.attempts"
        if name == "attempt" and not self.row.is_attempt:
            name = "attempts"
        if name == "trace_id":
            return TRACE_ID_SQL.format(f"{alias}.trace_id")
        return f"{alias}.{name}_ns" if name in ("duration", "network", "lag", "start", "end") else f"{alias}.{name}"

    def _compile_within(self, node: s.Within) -> str:
        """Return the SQL that tests whether one element of the list, or relative, satisfies the whole condition."""
        if node.what in v.RELATIVES:
            return self._compile_relative(node)
        inner = ConditionCompiler(
            RowAliases("event" if node.what == "event" else "link", (), node.what), self.parameters, self.bindings
        )
        condition = inner.compile_condition(node.where)
        self.row.needed_joins.update(self.row.span_aliases)
        lists = [f"{span}.{node.what}s" for span in self.row.span_aliases]
        tests = [f"coalesce({SQL.length(SQL.filter_list(items, node.what, condition))} > 0, false)" for items in lists]
        return "(" + " OR ".join(tests) + ")"

    def _compile_relative(self, node: s.Within) -> str:
        alias = f"{self.row.alias}_{node.what}"
        relative = make_span_aliases(f"{alias}_span", alias)
        condition = ConditionCompiler(relative, self.parameters, self.bindings).compile_condition(node.where)
        return compile_relative_test(node.what, self.row.alias, relative, condition, self.parameters)


def compile_constant(constant: Constant | None, parameters: SqlParameters) -> SqlValue:
    """Return a constant as a parameter.

    A missing constant differs from ``null``: it equals no value, not even itself.
    """
    if constant is None:
        return SqlValue("CAST(NULL AS VARCHAR)", "any")
    if constant.kind == "nothing":
        return SqlValue("NULL", "nothing")
    if constant.kind == "any":
        return SqlValue(f"CAST({parameters.add(encode_attribute_text(constant.value))} AS VARCHAR)", "any")
    return SqlValue(parameters.add(constant.value), constant.kind)


def compile_limit(node: s.Expression, bindings: Bindings, parameters: SqlParameters) -> str:
    """Return the limit of a claim as a parameter. Raises :class:`MissingValue` if it is missing."""
    return parameters.add(to_decimal(evaluate(node, bindings)))


def _compile_text_function(function: str, value: SqlValue) -> SqlValue:
    """Return ``len``, ``lower`` or ``upper`` of a text. For a list, ``len`` counts elements; the others are NULL."""
    plain = f"{function}({value.sql})"
    if value.kind == "any":
        listed = SQL.length(SQL.attribute_texts(value.sql)) if function == "len" else "NULL"
        plain = f"(CASE WHEN {SQL.is_encoded(value.sql)} THEN {listed} ELSE {plain} END)"
    return SqlValue(plain, "number" if function == "len" else "text")


def compile_arithmetic(operator: str, left: SqlValue, right: SqlValue) -> SqlValue:
    """Return `left` `operator` `right`. An attribute is read as a number."""
    a, b = (SQL.to_double(side.sql) if side.kind == "any" else side.sql for side in (left, right))
    if operator == "/":
        kind = "number" if left.kind in (right.kind, "any") else left.kind
        return SqlValue(f"({a} / nullif({b}, 0))", kind)
    kind = left.kind if right.kind in ("number", "fraction", "any", "points") else right.kind
    return SqlValue(f"({a} {operator} {b})", "number" if kind == "any" else kind)


def compile_negative(value: SqlValue) -> SqlValue:
    """Return `value` with the opposite sign."""
    sql = SQL.to_double(value.sql) if value.kind == "any" else value.sql
    return SqlValue(f"(-{sql})", "number" if value.kind == "any" else value.kind)


def compile_operator(operator: str, left: SqlValue, right: SqlValue) -> str:
    """Return the SQL of `left` `operator` `right`. The type of the literal decides how an attribute is read."""
    if "nothing" in (left.kind, right.kind):
        other = left if right.kind == "nothing" else right
        test = {"==": f"{other.sql} IS NULL", "!=": f"{other.sql} IS NOT NULL"}.get(operator)
        return f"({test})" if test else f"coalesce({other.sql} = NULL, false)"
    if {left.kind, right.kind} & {"text", "boolean"} and len({left.kind, right.kind} - {"any"}) > 1:
        raise MissingValue(f"{ValueType(left.kind).name} cannot be compared with {ValueType(right.kind).name}")
    if left.kind != "any" and right.kind == "any" and operator not in ("=~", "!~", "contains"):
        left, right, operator = right, left, FLIPPED_OPERATORS.get(operator, operator)
    if left.kind != "any":
        return f"coalesce({_compile_test(operator, left.sql, right)}, false)"
    element = "==" if operator == "contains" else operator
    return _compile_element_test(
        left.sql,
        operator in NEGATED_OPERATORS,
        lambda text: _compile_test(operator, text, right, is_stored_text=True),
        lambda item: _compile_test(element, item, right, is_stored_text=True),
    )


def compile_membership(
    value: SqlValue, node: s.OneOf, compile_option: Callable[[s.Expression, SqlValue], SqlValue]
) -> str:
    """Return the SQL of ``value in options`` or ``not in``."""
    ranges = [
        (compile_option(option.low, value), compile_option(option.high, value))
        for option in node.options
        if isinstance(option, s.ValueRange)
    ]
    others = [compile_option(option, value) for option in node.options if not isinstance(option, s.ValueRange)]

    def test(text: str, *, stored: bool = True) -> str:
        terms = [
            _compile_test("!=" if node.negated else "==", text, option, is_stored_text=stored) for option in others
        ]
        for low, high in ranges:
            above = _compile_test(">=", text, low, is_stored_text=stored)
            within = f"({above} AND {_compile_test('<=', text, high, is_stored_text=stored)})"
            terms.append(f"(NOT {within})" if node.negated else within)
        tests = [f"coalesce({term}, false)" for term in terms]
        if node.negated:
            return "(" + " AND ".join([*tests, f"{text} IS NOT NULL"]) + ")"
        return "(" + " OR ".join([*tests, "false"]) + ")"

    if value.kind != "any":
        return f"coalesce({test(value.sql, stored=False)}, false)"
    return _compile_element_test(value.sql, node.negated, test, test)


def _compile_test(operator: str, left: str, right: SqlValue, *, is_stored_text: bool = False) -> str:
    """Return the SQL that compares `left` with `right`.

    `left` is a text in the storage format, or a value of the kind of `right`.
    """
    if operator == "=~":
        return SQL.matches(left, right.sql)
    if operator == "!~":
        return f"NOT {SQL.matches(left, right.sql)}"
    if operator == "contains":
        return SQL.contains_text(left, right.sql)
    if not is_stored_text or right.kind == "text":
        return f"{left} {SQL_OPERATORS[operator]} {right.sql}"
    if right.kind == "boolean":
        boolean_text = f"CASE WHEN {left} IN ('true', 'false') THEN {left} END"
        return f"({boolean_text}) {SQL_OPERATORS[operator]} CAST({right.sql} AS VARCHAR)"
    if right.kind == "any" and operator in ("==", "!="):
        return f"{left} {SQL_OPERATORS[operator]} {right.sql}"
    limit = SQL.to_double(right.sql) if right.kind == "any" else right.sql
    return f"{SQL.to_double(left)} {SQL_OPERATORS[operator]} {limit}"


def _compile_element_test(
    value: str, is_negated: bool, test: Callable[[str], str], test_item: Callable[[str], str]
) -> str:
    """Return the SQL that tests a stored value.

    An array passes if any element satisfies the test, or, for a negated test, if no element violates it.
    """
    inner = f"coalesce({test_item('item')}, false)"
    matching, count = (f"NOT {inner}", "= 0") if is_negated else (inner, "> 0")
    array = f"{SQL.length(SQL.filter_list(SQL.attribute_texts(value), 'item', matching))} {count}"
    return (
        f"(CASE WHEN {value} IS NULL THEN false WHEN {SQL.is_encoded(value)} THEN {array}"
        f" ELSE coalesce({test(value)}, false) END)"
    )


def glob_to_like(pattern: str) -> str:
    """Return the LIKE pattern (escape ``\\``) of a glob in which only ``*`` is special."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def compile_operation_match(column: str, operation: s.Text, parameters: SqlParameters, bindings: Bindings) -> str:
    """Return the SQL that matches `column` with the name of an operation, which can contain ``*``."""
    name = interpolate(operation, bindings, keep_unknown=True)
    if "*" not in name:
        return f"{column} = {parameters.add(name)}"
    return f"{column} LIKE {parameters.add(glob_to_like(name))} ESCAPE '\\'"


def compile_service_match(column: str, service: s.Name | s.Text, parameters: SqlParameters, bindings: Bindings) -> str:
    """Return the SQL that matches `column` with the name of a service. A variable is replaced by its value."""
    if isinstance(service, s.Text):
        return f"{column} = {parameters.add(interpolate(service, bindings))}"
    variable = bindings.variables.get(service.text)
    return f"{column} = {parameters.add(variable.value if variable else service.text)}"


def find_subject(condition: s.Expression) -> s.Expression | None:
    """Return the first value that a condition reads: the left side of its first comparison."""
    for part in s.walk(condition):
        if isinstance(part, s.Compare):
            return part.left
        if isinstance(part, s.OneOf):
            return part.value
        if isinstance(part, s.Within):
            return None
    return None
