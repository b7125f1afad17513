"""Comparisons over whole selections: bags of values, aggregates, and what may still come."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from spanproof.query_lang import syntax as s
from spanproof.query_lang.types import as_selection
from spanproof.tests.reference.calls import Logical
from spanproof.tests.reference.conditions import (
    ORDERS,
    CallRow,
    Found,
    NotCovered,
    calculate,
    convert,
    is_one_of,
    is_stable,
    relate,
    value_of,
)
from spanproof.tests.reference.critical import critical_ns
from spanproof.tests.reference.selections import World, is_selection_stable, select, word

Trend: TypeAlias = Literal["fixed", "up", "down", "unknown"]
Outcome: TypeAlias = Literal["pass", "fail", "open", "nothing"]
TURNED: Final[dict[Trend, Trend]] = {"fixed": "fixed", "up": "down", "down": "up", "unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class One:
    """One value, None where there is nothing to make it of; ``trend``: where spans still to come can move it."""

    found: Found | None
    trend: Trend


@dataclass(frozen=True, slots=True)
class Bag:
    """Many values, each with its trace; ``stable``: one that is here stays, as it is."""

    values: tuple[tuple[str, Found], ...]
    stable: bool


def compare(node: s.Expression, world: World) -> Outcome:
    """Judge ``left operator right`` or ``value in options``."""
    if isinstance(node, s.OneOf):
        return _judge_membership(node, world)
    assert isinstance(node, s.Compare)
    left, right = evaluate(node.left, world), evaluate(node.right, world)
    if isinstance(left, One) and isinstance(right, One):
        return _judge_numbers(node.operator, left, right, world)
    bag, other = (left, right) if isinstance(left, Bag) else (right, left)
    assert isinstance(bag, Bag)
    assert isinstance(other, One)
    if other.found is None:
        return "nothing"
    if other.trend != "fixed" and not world.all_settled:
        return "open" if bag.values else "nothing"  # the limit itself may move
    limit = other.found
    turned = isinstance(right, Bag)
    oks = [
        (trace, relate(node.operator, limit, each) if turned else relate(node.operator, each, limit))
        for trace, each in bag.values
    ]
    return all_hold(oks, world, stable=bag.stable)


def all_hold(oks: list[tuple[str, bool]], world: World, *, stable: bool) -> Outcome:
    """Judge a claim about all things: it fails on a definite violation, passes only once all is settled."""
    if any(not ok and (stable or world.settled[trace]) for trace, ok in oks):
        return "fail"
    if not world.all_settled:
        return "open" if oks else "nothing"
    return "pass" if oks else "nothing"


def _judge_membership(node: s.OneOf, world: World) -> Outcome:
    value = evaluate(node.value, world)
    if isinstance(value, Bag):
        return all_hold(
            [(trace, is_one_of(found, node, None)) for trace, found in value.values], world, stable=value.stable
        )
    if value.found is None:
        return "nothing"
    holds = is_one_of(value.found, node, None)
    if not world.all_settled and value.trend != "fixed":
        bounds = [_bounds(option) for option in node.options]
        number = convert(value.found, "number")
        past = value.trend == "up" and all(number > high for _, high in bounds)
        past |= value.trend == "down" and all(number < low for low, _ in bounds)
        if not past:
            return "open"
    return "pass" if holds else "fail"


def _bounds(option: s.Expression) -> tuple[Fraction, Fraction]:
    if isinstance(option, s.Range):
        return Fraction(option.low.value), Fraction(option.high.value)
    found = value_of(option, None)
    number = None if found is None else convert(found, "number")
    assert number is not None
    return number, number


def _judge_numbers(operator: str, left: One, right: One, world: World) -> Outcome:
    if left.found is None or right.found is None:
        return "nothing"
    holds = relate(operator, left.found, right.found)
    trend = _add(left.trend, TURNED[right.trend])
    if world.all_settled or trend == "fixed":
        return "pass" if holds else "fail"
    if trend == "unknown":
        return "open"
    difference = convert(left.found, "number") - convert(right.found, "number")
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
        return "open"  # it may still come to meet the limit
    return "pass" if holds else "fail"


def _add(one: Trend, other: Trend) -> Trend:
    if one == "fixed":
        return other
    return one if other in ("fixed", one) else "unknown"


def evaluate(node: s.Expression, world: World) -> One | Bag:
    """Return what an expression over selections yields."""
    match node:
        case s.Function(name="count" | "error_rate" | "rate"):
            return _counted(node, world)
        case s.Function(name="duration" | "self_time" | "network" | "lag" | "attempts" | "values" | "critical"):
            return _bag(node, world)
        case s.Function(name="lower" | "upper" | "len" | "env" | "json"):
            return One(value_of(node, None), "fixed")
        case s.Function():
            return _aggregate(node, world)
        case s.Negative():
            return _map(evaluate(node.value, world), Fraction(0), "-", turned=True)
        case s.Arithmetic():
            return _arithmetic(node, world)
        case _:
            return One(value_of(node, None), "fixed")


def _arithmetic(node: s.Arithmetic, world: World) -> One | Bag:
    left, right = evaluate(node.left, world), evaluate(node.right, world)
    if isinstance(left, Bag) or isinstance(right, Bag):
        bag, other = (left, right) if isinstance(left, Bag) else (right, left)
        assert isinstance(other, One)
        if other.found is None:
            return Bag((), stable=False)
        mapped = _map(bag, convert(other.found, "number"), node.operator, turned=isinstance(right, Bag))
        assert isinstance(mapped, Bag)
        return replace(mapped, stable=mapped.stable and other.trend == "fixed")
    if left.trend == "fixed" or right.trend == "fixed":
        one, other, turned = (right, left, True) if left.trend == "fixed" else (left, right, False)
        if other.found is None:
            return One(None, "unknown")
        return _map(one, convert(other.found, "number"), node.operator, turned=turned)
    values = [None if side.found is None else convert(side.found, "number") for side in (left, right)]
    trend = (
        _add(left.trend, right.trend if node.operator == "+" else TURNED[right.trend])
        if node.operator in ("+", "-")
        else "unknown"
    )
    if values[0] is None or values[1] is None or (node.operator == "/" and values[1] == 0):
        return One(None, trend)
    return One(Found("number", calculate(node.operator, values[0], values[1])), trend)


def _map(side: One | Bag, other: Fraction, operator: str, *, turned: bool) -> One | Bag:
    """Calculate with a fixed number; `turned`: it stands on the left."""

    def each(found: Found | None) -> Found | None:
        number = None if found is None else convert(found, "number")
        if number is None:
            return None
        left, right = (other, number) if turned else (number, other)
        if operator == "/" and right == 0:
            return None
        return Found("number", calculate(operator, left, right))

    if isinstance(side, Bag):
        values = tuple((trace, made) for trace, found in side.values if (made := each(found)) is not None)
        return Bag(values, side.stable)
    trend = side.trend
    if trend != "fixed":
        if operator == "-" and turned:
            trend = TURNED[trend]
        elif operator in ("*", "/") and (other <= 0 or (operator == "/" and turned)):
            trend = TURNED[trend] if operator == "*" and other < 0 else "unknown"
    return One(each(side.found), trend)


# ## Functions of a selection


def _is_traces(node: s.Expression) -> bool:
    return isinstance(node, s.Name) and node.text == "traces"


def _counted(node: s.Function, world: World) -> One:
    argument = node.arguments[0]
    if _is_traces(argument):
        if node.name == "count":
            return One(Found("number", Fraction(len(world.settled))), "up")
        raise NotCovered(f"{node.name}(traces)")
    selection = as_selection(argument)
    assert selection is not None
    if node.name == "rate":
        raise NotCovered("rate")
    items = select(selection, world)
    if node.name == "count":
        return One(Found("number", Fraction(len(items))), "up" if is_selection_stable(selection) else "unknown")
    if not items:
        return One(None, "unknown")
    errors = sum(1 for item in items if (item.last if isinstance(item, Logical) else item).error)
    return One(Found("number", Fraction(errors, len(items))), "unknown")


def _bag(node: s.Function, world: World) -> Bag:
    argument = node.arguments[0]
    if node.name == "critical":
        name = word(argument)  # type: ignore[arg-type]
        assert name is not None
        shares = ((trace, critical_ns(name, trace, world)) for trace in world.settled)
        return Bag(tuple((t, Found("number", Fraction(ns))) for t, ns in shares if ns is not None), stable=False)
    if _is_traces(argument):
        raise NotCovered(f"{node.name}(traces)")
    selection = as_selection(argument)
    assert selection is not None
    items = select(selection, world)
    field = node.arguments[1] if node.name == "values" else s.Name(node.name, node.at)
    found = []
    for item in items:
        row = world.row(item)
        value = _network(row) if node.name == "network" else value_of(field, row)
        if value is not None:
            found.append((row.trace_id, value))
    stable = is_selection_stable(selection) and is_stable(field)
    if isinstance(selection, s.Call) and not selection.attempts:
        stable = False
    return Bag(tuple(found), stable)


def _network(row: object) -> Found | None:
    assert isinstance(row, CallRow)
    return value_of(s.Name("network", s.Source(0, 0)), row)


def _aggregate(node: s.Function, world: World) -> One:
    inner = evaluate(node.arguments[-1], world)
    if not isinstance(inner, Bag):
        raise NotCovered(f"{node.name} of one value")
    if node.name == "distinct":
        different = len({_identity(found) for _, found in inner.values})
        trend: Trend = "up" if inner.stable else "unknown"
        return One(Found("number", Fraction(different)) if different else None, trend)
    numbers = sorted(number for _, found in inner.values if (number := convert(found, "number")) is not None)
    if node.name == "sum":
        return One(Found("number", Fraction(sum(numbers))), "unknown")
    trend = "unknown"
    if inner.stable:
        trend = "up" if node.name == "max" else "down" if node.name == "min" else "unknown"
    if not numbers:
        return One(None, trend)
    return One(Found("number", _made(node, numbers)), trend)


def _identity(found: Found) -> object:
    return (found.kind, str(found.value))


def _made(node: s.Function, numbers: list[Fraction]) -> Fraction:
    match node.name:
        case "min":
            return numbers[0]
        case "max":
            return numbers[-1]
        case "avg":
            return sum(numbers, Fraction(0)) / len(numbers)
        case "stddev":
            raise NotCovered("stddev")
        case "p":
            assert isinstance(node.arguments[0], s.Number)
            percent = Fraction(node.arguments[0].value)
        case _:
            percent = Fraction(node.name[1:])
    return numbers[math.ceil(percent / 100 * len(numbers)) - 1]
