"""Comparisons over selections: bags of values, aggregates, and their trends."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from spanproof.query_lang.check.types import to_selection
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import AGGREGATES, SELECTION_FUNCTIONS
from spanproof.tests.reference.aggregates import compute_aggregate
from spanproof.tests.reference.calls import Logical, Try
from spanproof.tests.reference.conditions import (
    ORDERS,
    NotCovered,
    TypedValue,
    calculate,
    convert,
    is_one_of,
    is_stable,
    relate,
    value_of,
)
from spanproof.tests.reference.critical import critical_ns
from spanproof.tests.reference.selections import GroupKey, World, count_calls, is_selection_stable, select, word
from spanproof.tests.reference.spans import Span
from spanproof.tests.reference.value_sets import compare_sets

Trend: TypeAlias = Literal["fixed", "up", "down", "unknown"]
Outcome: TypeAlias = Literal["pass", "fail", "open", "nothing"]
COUNTED: Final = ("count", "error_rate", "rate")
TURNED: Final[dict[Trend, Trend]] = {"fixed": "fixed", "up": "down", "down": "up", "unknown": "unknown"}


class One(Struct, frozen=True):
    """One value, or None if there is no data for it. ``trend`` is the direction in which later spans can move it."""

    value: TypedValue | None
    trend: Trend


class Bag(Struct, frozen=True):
    """Many values, each with its trace. ``stable`` means that later spans do not change or remove a value."""

    values: tuple[tuple[str, TypedValue], ...]
    stable: bool


def compare(node: s.Expression, world: World) -> Outcome:
    """Judge ``left operator right`` or ``value in options``."""
    if isinstance(node, s.OneOf):
        return _judge_membership(node, world)
    assert isinstance(node, s.Compare)
    left, right = evaluate(node.left, world, node.right), evaluate(node.right, world, node.left)
    if isinstance(left, One) and isinstance(right, One):
        return _judge_numbers(node.operator, left, right, world)
    if isinstance(left, Bag) and isinstance(right, Bag):
        oks, has_empty_side = compare_sets(node.operator, left.values, right.values)
        outcome = all_hold(oks, world, stable=node.operator == "!=" and left.stable and right.stable)
        return "open" if has_empty_side and outcome != "fail" else outcome
    bag, other = (left, right) if isinstance(left, Bag) else (right, left)
    assert isinstance(bag, Bag)
    assert isinstance(other, One)
    if other.value is None:
        return "nothing"
    if other.trend != "fixed" and not world.all_settled:
        return "open" if bag.values else "nothing"  # the limit itself may change
    limit = other.value
    turned = isinstance(right, Bag)
    oks = [
        (trace, relate(node.operator, limit, each) if turned else relate(node.operator, each, limit))
        for trace, each in bag.values
    ]
    return all_hold(oks, world, stable=bag.stable)


def can_only_grow(node: s.Compare, world: World) -> bool:
    """Return whether later spans can only increase the difference of the two sides."""
    left, right = evaluate(node.left, world, node.right), evaluate(node.right, world, node.left)
    return isinstance(left, One) and isinstance(right, One) and _add(left.trend, TURNED[right.trend]) == "up"


def all_hold(oks: list[tuple[str, bool]], world: World, *, stable: bool) -> Outcome:
    """Judge a claim about all items: it fails on a definite violation, and passes only once all traces are settled."""
    if any(not ok and (stable or world.settled[trace]) for trace, ok in oks):
        return "fail"
    if not world.all_settled:
        return "open" if oks else "nothing"
    return "pass" if oks else "nothing"


def _judge_membership(node: s.OneOf, world: World) -> Outcome:
    value = evaluate(node.value, world)
    option_values = [evaluate(option, world) for option in node.options if isinstance(option, s.Function)]
    if any(isinstance(option, One) and option.value is None for option in option_values):
        return "nothing"
    if option_values and not world.all_settled:
        return "open"
    options = [option.value for option in option_values if isinstance(option, One)]
    others = [option for option in node.options if not isinstance(option, s.Function)]
    node = replace(node, options=(*others, *options))  # type: ignore[arg-type]  # values are their own expressions
    if isinstance(value, Bag):
        return all_hold(
            [(trace, is_one_of(typed, node, None)) for trace, typed in value.values], world, stable=value.stable
        )
    if value.value is None:
        return "nothing"
    holds = is_one_of(value.value, node, None)
    if not world.all_settled and value.trend != "fixed":
        bounds = [_bounds(option) for option in node.options]
        number = convert(value.value, "number")
        is_decided = value.trend == "up" and all(number > high for _, high in bounds)
        is_decided |= value.trend == "down" and all(number < low for low, _ in bounds)
        if not is_decided:
            return "open"
    return "pass" if holds else "fail"


def _bounds(option: s.Expression) -> tuple[Fraction, Fraction]:
    if isinstance(option, s.ValueRange):
        return Fraction(option.low.value), Fraction(option.high.value)
    typed = value_of(option, None)
    number = None if typed is None else convert(typed, "number")
    assert number is not None
    return number, number


def _judge_numbers(operator: str, left: One, right: One, world: World) -> Outcome:
    if left.value is None or right.value is None:
        return "nothing"
    holds = relate(operator, left.value, right.value)
    trend = _add(left.trend, TURNED[right.trend])
    if world.all_settled or trend == "fixed":
        return "pass" if holds else "fail"
    if trend == "unknown":
        return "open"
    difference = convert(left.value, "number") - convert(right.value, "number")
    for further in (
        (difference, difference + 1, difference + 10**30)
        if trend == "up"
        else (
            difference,
            difference - 1,
            difference - 10**30,
        )
    ):
        if ORDERS[operator](further, 0) != holds:
            return "open"
    if operator in ("==", "!=") and (difference < 0 if trend == "up" else difference > 0):
        return "open"  # the difference may still reach zero
    return "pass" if holds else "fail"


def _add(first: Trend, second: Trend) -> Trend:
    if first == "fixed":
        return second
    return first if second in ("fixed", first) else "unknown"


def evaluate(node: s.Expression, world: World, opposite: s.Expression | None = None) -> One | Bag:
    """Return the value of an expression over selections; `opposite` is the other side of the comparison."""
    match node:
        case s.Name(text="baseline"):
            assert opposite is not None
            baseline = evaluate(opposite, world.in_baseline())
            assert isinstance(baseline, One)
            return One(baseline.value, "fixed")
        case s.Function(name="count" | "error_rate" | "rate"):
            return _evaluate_count(node, world)
        case s.Function(
            name="duration" | "self_time" | "network" | "lag" | "attempts" | "calls" | "values" | "critical"
        ):
            return _bag(node, world)
        case s.Function(name="lower" | "upper" | "len" | "env" | "json"):
            return One(value_of(node, None), "fixed")
        case s.Function():
            return _aggregate(node, world)
        case s.Negative():
            return _map(evaluate(node.value, world, opposite), Fraction(0), "-", turned=True)
        case s.Arithmetic():
            return _arithmetic(node, world, opposite)
        case _:
            return One(value_of(node, None), "fixed")


def _arithmetic(node: s.Arithmetic, world: World, opposite: s.Expression | None) -> One | Bag:
    left, right = evaluate(node.left, world, opposite), evaluate(node.right, world, opposite)
    if isinstance(left, Bag) or isinstance(right, Bag):
        bag, other = (left, right) if isinstance(left, Bag) else (right, left)
        assert isinstance(other, One)
        if other.value is None:
            return Bag((), stable=False)
        mapped = _map(bag, convert(other.value, "number"), node.operator, turned=isinstance(right, Bag))
        assert isinstance(mapped, Bag)
        return replace(mapped, stable=mapped.stable and other.trend == "fixed")
    if left.trend == "fixed" or right.trend == "fixed":
        one, other, turned = (right, left, True) if left.trend == "fixed" else (left, right, False)
        if other.value is None:
            return One(None, "unknown")
        return _map(one, convert(other.value, "number"), node.operator, turned=turned)
    values = [None if side.value is None else convert(side.value, "number") for side in (left, right)]
    trend = (
        _add(left.trend, right.trend if node.operator == "+" else TURNED[right.trend])
        if node.operator in ("+", "-")
        else "unknown"
    )
    if values[0] is None or values[1] is None or (node.operator == "/" and values[1] == 0):
        return One(None, trend)
    return One(TypedValue("number", calculate(node.operator, values[0], values[1])), trend)


def _map(side: One | Bag, other: Fraction, operator: str, *, turned: bool) -> One | Bag:
    """Calculate with a fixed number; `is_left` means that the number is the left operand."""

    def each(typed: TypedValue | None) -> TypedValue | None:
        number = None if typed is None else convert(typed, "number")
        if number is None:
            return None
        left, right = (other, number) if turned else (number, other)
        if operator == "/" and right == 0:
            return None
        return TypedValue("number", calculate(operator, left, right))

    if isinstance(side, Bag):
        values = tuple((trace, result) for trace, typed in side.values if (result := each(typed)) is not None)
        return Bag(values, side.stable)
    trend = side.trend
    if trend != "fixed":
        if operator == "-" and turned:
            trend = TURNED[trend]
        elif operator in ("*", "/") and (other <= 0 or (operator == "/" and turned)):
            trend = TURNED[trend] if operator == "*" and other < 0 else "unknown"
    return One(each(side.value), trend)


# ## Functions of a selection


def _is_traces(node: s.Expression) -> bool:
    return isinstance(node, s.Name) and node.text == "traces"


def _evaluate_count(node: s.Function, world: World) -> One:
    argument = node.arguments[0]
    if _is_traces(argument):
        stable = True
        errors = [any(world.forest.error(root) for root in _list_top_spans(trace, world)) for trace in world.settled]
    else:
        selection = to_selection(argument)
        assert selection is not None
        stable = is_selection_stable(selection)
        errors = [_is_error(item, world) for item in select(selection, world)]
    if node.name == "count":
        return One(TypedValue("number", Fraction(len(errors))), "up" if stable else "unknown")
    spans = list(world.spans())
    duration_ns = max((span.end_ns for span in spans), default=0) - min((span.start_ns for span in spans), default=0)
    if not errors and node.name != "rate":
        return One(None, "unknown")
    if node.name == "rate":
        if not errors:
            return One(TypedValue("number", Fraction(0)), "unknown")
        if duration_ns == 0:
            return One(None, "unknown")
        return One(TypedValue("number", Fraction(len(errors) * 1_000_000_000, duration_ns)), "unknown")
    return One(TypedValue("number", Fraction(sum(errors), len(errors))), "unknown")


def _is_error(item: Span | Logical | Try, world: World) -> bool:
    """Return whether `error_rate` counts a request, a call or an attempt as failed."""
    if isinstance(item, Span):
        return world.forest.error(item)
    return item.failed_in_the_end if isinstance(item, Logical) else item.error or item.no_response


def _list_top_spans(trace_id: str, world: World) -> list[Span]:
    """Return the spans of a trace without a known parent."""
    return [span for span in world.forest.spans if span.trace_id == trace_id and world.forest.parent(span) is None]


def list_values(node: s.Function, world: World) -> list[tuple[str, Fraction]]:
    """Return the values behind a quantile or an error rate (1 for an error), each with its trace."""
    if node.name == "error_rate":
        selection = to_selection(node.arguments[0])
        assert selection is not None
        items = select(selection, world)
        return [(world.row(item).trace_id, Fraction(_is_error(item, world))) for item in items]
    bag = evaluate(node.arguments[-1], world)
    assert isinstance(bag, Bag)
    return [(trace, n) for trace, typed in bag.values if (n := convert(typed, "number")) is not None]


def _bag(node: s.Function, world: World) -> Bag:
    argument = node.arguments[0]
    if node.name == "calls":
        assert isinstance(argument, s.CallSelection)
        counted = count_calls(argument, world)
        return Bag(tuple((t, TypedValue("number", Fraction(n))) for t, n in counted), stable=False)
    if node.name == "critical":
        name = word(argument)  # type: ignore[arg-type]
        assert name is not None
        shares = ((trace, critical_ns(name, trace, world)) for trace in world.settled)
        return Bag(tuple((t, TypedValue("number", Fraction(ns))) for t, ns in shares if ns is not None), stable=False)
    if _is_traces(argument):
        assert node.name == "duration"
        spans_by_trace = [(trace, [s for s in world.forest.spans if s.trace_id == trace]) for trace in world.settled]
        return Bag(
            tuple(
                (trace, TypedValue("number", Fraction(max(s.end_ns for s in spans) - min(s.start_ns for s in spans))))
                for trace, spans in spans_by_trace
                if spans
            ),
            stable=False,
        )
    selection = to_selection(argument)
    assert selection is not None
    typed = [(world.row(item).trace_id, value) for item, value in _select_values(node, selection, world)]
    field = _field(node)
    stable = is_selection_stable(selection) and is_stable(field)
    if isinstance(selection, s.CallSelection) and not selection.attempts:
        stable = False
    return Bag(tuple(typed), stable)


def _field(node: s.Function) -> s.Expression:
    return node.arguments[1] if node.name == "values" else s.Name(node.name, node.at)


def _select_values(
    node: s.Function, selection: s.Selection, world: World
) -> Iterator[tuple[Span | Logical | Try, TypedValue]]:
    """Yield the selected items for which the function has a value."""
    for item in select(selection, world):
        value = value_of(_field(node), world.row(item))
        if value is not None:
            yield item, value


def group_keys(claim: s.ComparisonClaim | s.Every, by: tuple[s.Name, ...], world: World) -> set[GroupKey]:
    """Return the groups of a claim: those of its bag of values, else those of all aggregated items."""
    if isinstance(claim, s.Every):
        return {world.group_of(item, by) for item in select(claim.selection, world)}
    functions = list(_functions(claim.condition, AGGREGATES)) or list(_functions(claim.condition, {}))
    calculated = [
        inner
        for outer in s.walk(claim.condition)
        if isinstance(outer, s.Function) and outer.name in AGGREGATES and outer.name != "distinct"
        for inner in _functions(outer.arguments[-1], {})
    ]
    keys = set()
    for node in functions:
        selection = to_selection(node.arguments[0])
        assert selection is not None
        if node.name in COUNTED:
            keys |= {world.group_of(item, by) for item in select(selection, world)}
        else:
            keys |= {
                world.group_of(item, by)
                for item, value in _select_values(node, selection, world)
                if node not in calculated or convert(value, "number") is not None
            }
    return keys


def _functions(node: object, outside: Collection[str]) -> Iterator[s.Function]:
    """Yield the functions over selections; with `outside`, only bags of values outside these functions."""
    if isinstance(node, s.Function):
        if node.name in outside:
            return
        if node.name in SELECTION_FUNCTIONS and not (outside and node.name in COUNTED):
            yield node
    if not isinstance(node, s.SpanSelection | s.CallSelection):
        for child in s.iter_children(node):
            yield from _functions(child, outside)


def _aggregate(node: s.Function, world: World) -> One:
    inner = evaluate(node.arguments[-1], world)
    if not isinstance(inner, Bag):
        raise NotCovered(f"{node.name} of one value")
    if node.name == "distinct":
        distinct_count = len({_identity(typed) for _, typed in inner.values})
        trend: Trend = "up" if inner.stable else "unknown"
        return One(TypedValue("number", Fraction(distinct_count)) if distinct_count else None, trend)
    numbers = sorted(number for _, typed in inner.values if (number := convert(typed, "number")) is not None)
    if node.name == "sum":
        return One(TypedValue("number", Fraction(sum(numbers))), "unknown")
    trend = "unknown"
    if inner.stable:
        trend = "up" if node.name == "max" else "down" if node.name == "min" else "unknown"
    if not numbers or (node.name == "stddev" and len(numbers) == 1):
        return One(None, trend)
    return One(TypedValue("number", compute_aggregate(node, numbers)), trend)


def _identity(typed: TypedValue) -> object:
    return (typed.kind, str(typed.value))
