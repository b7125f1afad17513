"""Conditions and values about one span, call, event or link, as SQL.

A condition is true or false, never unknown: a comparison with something missing is false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from spanproof.collector.semconv import read_attribute
from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.constants import Bindings, Constant, NoValue, encode, evaluate, fill, is_constant, number
from spanproof.query_lang.vocabulary import Type

OPERATORS: Final = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
NEGATIVE: Final = ("!=", "!~", "not in")
HEX_ID: Final = "format('{{:016x}}', {})"
TRACE_ID: Final = "replace(CAST({} AS VARCHAR), '-', '')"


@dataclass(slots=True)
class Parameters:
    """The values of a query, by the names under which its SQL speaks of them, and the table of its traces."""

    values: dict[str, object] = field(default_factory=dict)
    traces: str = "selected"

    def about(self, traces: str) -> Parameters:
        """Return parameters of the same query for a part of it that is about other traces."""
        return Parameters(self.values, traces)

    def add(self, value: object) -> str:
        """Take in a value; return the SQL that stands for it."""
        name = f"p{len(self.values)}"
        if isinstance(value, Decimal):
            value = int(value) if value == int(value) else float(value)
        self.values[name] = value
        return f"${name}"


@dataclass(frozen=True, slots=True)
class Value:
    """An SQL expression and its kind. Kind ``any``: a text as attributes are stored, to be read as needed."""

    sql: str
    kind: v.Kind


@dataclass(frozen=True, slots=True)
class Row:
    """What a condition is about, and under which aliases its tables stand in the query.

    ``spans`` are aliases of the table ``spans``, in the order in which attributes are looked for; ``place`` is
    that of ``tree`` (spans) or of ``calls`` or ``exchanges`` (calls); ``joins`` says how the spans are joined where
    they are needed, and ``joined`` collects what is.
    """

    row: v.Row
    spans: tuple[str, ...]
    place: str
    attempts: bool = False
    joins: Mapping[str, str] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)


class Conditions:
    """Writes conditions about `row` as SQL, their literals as `parameters`."""

    def __init__(self, row: Row, parameters: Parameters, bindings: Bindings) -> None:
        self.row = row
        self.parameters = parameters
        self.bindings = bindings

    def condition(self, node: s.Expression) -> str:
        """Return the SQL of a condition."""
        match node:
            case s.AnyOf():
                return "(" + " OR ".join(self.condition(term) for term in node.terms) + ")"
            case s.AllOf():
                return "(" + " AND ".join(self.condition(term) for term in node.terms) + ")"
            case s.Not():
                return f"(NOT {self.condition(node.term)})"
            case s.Compare():
                return self.compare(node)
            case s.OneOf():
                return self.one_of(node)
            case s.Within():
                return self._within(node)
            case s.Function(name="exists"):
                return f"({self.value(node.arguments[0]).sql} IS NOT NULL)"
            case _:
                return f"coalesce({self.value(node).sql}, false)"

    def value(self, node: s.Expression) -> Value:
        """Return the SQL of a value."""
        if isinstance(node, s.Name) and (found := self._field(node.text)):
            return found
        if isinstance(node, s.Arithmetic):
            return arithmetic(node.operator, self.value(node.left), self.value(node.right))
        if isinstance(node, s.Negative):
            return negative(self.value(node.value))
        if isinstance(node, s.Function) and node.name in ("len", "lower", "upper"):
            return _text_function(node.name, self.value(node.arguments[0]))
        if isinstance(node, s.Function | s.Compare | s.OneOf | s.AnyOf | s.AllOf | s.Not | s.Within) and not (
            isinstance(node, s.Function) and node.name != "exists"
        ):
            return Value(self.condition(node), "boolean")
        if is_constant(node):
            return constant(evaluate(node, self.bindings), self.parameters)
        raise AssertionError(f"{type(node).__name__} is no value of a {self.row.row}")

    def compare(self, node: s.Compare) -> str:
        """Return the SQL of a comparison."""
        left = self.value(node.left)
        word = self._word(node.right, left)
        return comparison(node.operator, left, word or self.value(node.right))

    def one_of(self, node: s.OneOf) -> str:
        """Return the SQL of ``in`` and ``not in``."""
        return membership(
            self.value(node.value),
            node,
            lambda option, value: self._word(option, value) or self.value(option),
        )

    def _word(self, node: s.Expression, beside: Value) -> Value | None:
        words = v.ENUMERATIONS.get(beside.kind)
        if words is None or not isinstance(node, s.Name) or node.text in self.bindings.variables:
            return None
        return Value(self.parameters.add(words[node.text]), beside.kind)

    def _field(self, name: str) -> Value | None:
        kind = v.FIELDS[self.row.row].get(name)
        if kind is not None:
            return Value(self._column(name), kind)
        if name in self.bindings.variables or name in v.CONSTANTS:
            return None
        return Value(self._attribute(name), "any")

    def _attribute(self, name: str) -> str:
        if self.row.row in ("event", "link"):
            return read_attribute(f"{self.row.place}.attributes", name)
        if name.startswith(("resource.", "scope.")):
            where, rest = name.split(".", 1)
            self.row.joined.add(where)
            if where == "scope" or self.row.row == "call":
                self.row.joined.update(self.row.spans)
            tables = [f"{span}_{where}" for span in self.row.spans]
            if where == "scope" and rest in ("name", "version"):
                reads = [f"{table}.{rest}" for table in tables]
            else:
                reads = [read_attribute(f"{table}.attributes", rest) for table in tables]
        else:
            self.row.joined.update(self.row.spans)
            reads = [read_attribute(f"{span}.attributes", name.removeprefix("span.")) for span in self.row.spans]
        if len(reads) == 1:
            return reads[0]
        if self.row.attempts:
            first, second = reads
            place = self.row.place
            return f"CASE WHEN {place}.arrived THEN coalesce({second}, {first}) ELSE coalesce({first}, {second}) END"
        return f"coalesce({', '.join(reads)})"

    def _column(self, name: str) -> str:
        place = self.row.place
        if self.row.row == "event":
            return f"{place}.time_ns" if name == "time" else f"{place}.name"
        if self.row.row == "link":
            return (TRACE_ID if name == "trace_id" else HEX_ID).format(f"{place}.{name}")
        if self.row.row == "call":
            return self._call_column(name)
        (span,) = self.row.spans
        if name in ("error", "depth", "service", "name", "kind"):
            return f"{place}.{name}"
        if name == "self_time":
            self.row.joined.add("self_time")
            return f"({place}.end_ns - {place}.start_ns - coalesce({span}_covered.covered_ns, 0))"
        in_tree = {
            "duration": f"({place}.end_ns - {place}.start_ns)",
            "start": f"{place}.start_ns",
            "end": f"{place}.end_ns",
            "trace_id": TRACE_ID.format(f"{place}.trace_id"),
            "root": f"({place}.depth = 0 AND NOT {place}.orphan)",
        }
        if name in in_tree:
            return in_tree[name]
        self.row.joined.add(span)
        return HEX_ID.format(f"{span}.{name}") if name in ("span_id", "parent_id") else f"{span}.{name}"

    def _call_column(self, name: str) -> str:
        place = self.row.place
        if name == "attempts" and self.row.attempts:
            self.row.joined.add("call")
            return f"{place}_call.attempts"
        if name == "attempt" and not self.row.attempts:
            name = "attempts"
        if name == "trace_id":
            return TRACE_ID.format(f"{place}.trace_id")
        return f"{place}.{name}_ns" if name in ("duration", "network", "lag", "start", "end") else f"{place}.{name}"

    def _within(self, node: s.Within) -> str:
        """One element of the list satisfies the whole condition."""
        inner = Conditions(Row(node.what, (), node.what), self.parameters, self.bindings)
        found = inner.condition(node.where)
        self.row.joined.update(self.row.spans)
        lists = [f"{span}.{node.what}s" for span in self.row.spans]
        tests = [f"coalesce(len(list_filter({items}, lambda {node.what}: {found})) > 0, false)" for items in lists]
        return "(" + " OR ".join(tests) + ")"


def constant(found: Constant | None, parameters: Parameters) -> Value:
    """Return a constant as a parameter. One that is missing is no ``null``: it is like nothing, itself included."""
    if found is None:
        return Value("CAST(NULL AS VARCHAR)", "any")
    if found.kind == "nothing":
        return Value("NULL", "nothing")
    if found.kind == "any":
        return Value(f"CAST({parameters.add(encode(found.value))} AS VARCHAR)", "any")
    return Value(parameters.add(found.value), found.kind)


def limit(node: s.Expression, bindings: Bindings, parameters: Parameters) -> str:
    """Return a number that a claim sets as a parameter. Raises :class:`NoValue` where it is missing."""
    return parameters.add(number(evaluate(node, bindings)))


def _text_function(function: str, value: Value) -> Value:
    """Return ``len``, ``lower`` or ``upper`` of a text; a list has a length, in elements, and no letters."""
    plain = f"{function}({value.sql})"
    if value.kind == "any":
        listed = f"len(attribute_texts({value.sql}))" if function == "len" else "NULL"
        plain = f"(CASE WHEN {value.sql}[1] = chr(1) THEN {listed} ELSE {plain} END)"
    return Value(plain, "number" if function == "len" else "text")


def arithmetic(operator: str, left: Value, right: Value) -> Value:
    """Return `left` `operator` `right`; what stands in an attribute is read as a number."""
    a, b = (f"TRY_CAST({side.sql} AS DOUBLE)" if side.kind == "any" else side.sql for side in (left, right))
    if operator == "/":
        kind = "number" if left.kind in (right.kind, "any") else left.kind
        return Value(f"({a} / nullif({b}, 0))", kind)
    kind = left.kind if right.kind in ("number", "fraction", "any", "points") else right.kind
    return Value(f"({a} {operator} {b})", "number" if kind == "any" else kind)


def negative(value: Value) -> Value:
    """Return `value` below zero."""
    sql = f"TRY_CAST({value.sql} AS DOUBLE)" if value.kind == "any" else value.sql
    return Value(f"(-{sql})", "number" if value.kind == "any" else value.kind)


def comparison(operator: str, left: Value, right: Value) -> str:
    """Return the SQL of `left` `operator` `right`; the literal's type decides how an attribute is read."""
    if "nothing" in (left.kind, right.kind):
        known = left if right.kind == "nothing" else right
        test = {"==": f"{known.sql} IS NULL", "!=": f"{known.sql} IS NOT NULL"}.get(operator)
        return f"({test})" if test else f"coalesce({known.sql} = NULL, false)"
    if {left.kind, right.kind} & {"text", "boolean"} and len({left.kind, right.kind} - {"any"}) > 1:
        raise NoValue(f"{Type(left.kind).name} cannot be compared with {Type(right.kind).name}")
    if left.kind != "any" and right.kind == "any" and operator not in ("=~", "!~", "contains"):
        left, right, operator = right, left, FLIPPED.get(operator, operator)
    if left.kind != "any":
        return f"coalesce({_test(operator, left.sql, right)}, false)"
    element = "==" if operator == "contains" else operator
    return _each_text(
        left.sql,
        operator in NEGATIVE,
        lambda text: _test(operator, text, right, stored=True),
        lambda item: _test(element, item, right, stored=True),
    )


def membership(value: Value, node: s.OneOf, emit: Callable[[s.Expression, Value], Value]) -> str:
    """Return the SQL of ``value in options`` or ``not in``."""
    ranges = [
        (emit(option.low, value), emit(option.high, value)) for option in node.options if isinstance(option, s.Range)
    ]
    others = [emit(option, value) for option in node.options if not isinstance(option, s.Range)]

    def test(text: str, *, stored: bool = True) -> str:
        terms = [_test("!=" if node.negated else "==", text, option, stored=stored) for option in others]
        for low, high in ranges:
            within = f"({_test('>=', text, low, stored=stored)} AND {_test('<=', text, high, stored=stored)})"
            terms.append(f"(NOT {within})" if node.negated else within)
        told = [f"coalesce({term}, false)" for term in terms]
        if node.negated:
            return "(" + " AND ".join([*told, f"{text} IS NOT NULL"]) + ")"
        return "(" + " OR ".join([*told, "false"]) + ")"

    if value.kind != "any":
        return f"coalesce({test(value.sql, stored=False)}, false)"
    return _each_text(value.sql, node.negated, test, test)


def _test(operator: str, left: str, right: Value, *, stored: bool = False) -> str:
    """Compare `left`, a text as stored or a value of the kind of `right`, with `right`."""
    if operator == "=~":
        return f"regexp_matches({left}, {right.sql})"
    if operator == "!~":
        return f"NOT regexp_matches({left}, {right.sql})"
    if operator == "contains":
        return f"contains({left}, {right.sql})"
    if not stored or right.kind == "text":
        return f"{left} {OPERATORS[operator]} {right.sql}"
    if right.kind == "boolean":
        known = f"CASE WHEN {left} IN ('true', 'false') THEN {left} END"
        return f"({known}) {OPERATORS[operator]} CAST({right.sql} AS VARCHAR)"
    if right.kind == "any" and operator in ("==", "!="):
        return f"{left} {OPERATORS[operator]} {right.sql}"
    limit = f"TRY_CAST({right.sql} AS DOUBLE)" if right.kind == "any" else right.sql
    return f"TRY_CAST({left} AS DOUBLE) {OPERATORS[operator]} {limit}"


def _each_text(value: str, negative: bool, test: Callable[[str], str], test_item: Callable[[str], str]) -> str:
    """Test a stored value: any element of an array satisfies it, or, for a negative test, none violates it."""
    inner = f"coalesce({test_item('item')}, false)"
    wrong, count = (f"NOT {inner}", "= 0") if negative else (inner, "> 0")
    array = f"len(list_filter(attribute_texts({value}), lambda item: {wrong})) {count}"
    return (
        f"(CASE WHEN {value} IS NULL THEN false WHEN {value}[1] = chr(1) THEN {array}"
        f" ELSE coalesce({test(value)}, false) END)"
    )


def glob(pattern: str) -> str:
    """Return the LIKE pattern (escape ``\\``) of a glob in which only ``*`` is special."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def matches_name(column: str, operation: s.Text, parameters: Parameters, bindings: Bindings) -> str:
    """Return the SQL that matches `column` with an operation's name, which may hold ``*``."""
    name = fill(operation, bindings, braces=True)
    if "*" not in name:
        return f"{column} = {parameters.add(name)}"
    return f"{column} LIKE {parameters.add(glob(name))} ESCAPE '\\'"


def matches_service(column: str, service: s.Name | s.Text, parameters: Parameters, bindings: Bindings) -> str:
    """Return the SQL that matches `column` with a service's name; a variable stands for its value."""
    if isinstance(service, s.Text):
        return f"{column} = {parameters.add(fill(service, bindings))}"
    variable = bindings.variables.get(service.text)
    return f"{column} = {parameters.add(variable.value if variable else service.text)}"


def subject(condition: s.Expression) -> s.Expression | None:
    """Return what a condition looks at first: the left side of its first comparison."""
    for part in s.walk(condition):
        if isinstance(part, s.Compare):
            return part.left
        if isinstance(part, s.OneOf):
            return part.value
        if isinstance(part, s.Within):
            return None
    return None
