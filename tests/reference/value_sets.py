"""Comparison of the sets of values of two selections, in each trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from spanproof.tests.reference.conditions import NotCovered, TypedValue, convert, relate

Values: TypeAlias = Iterable[tuple[str, TypedValue]]  # each with its trace


def compare_sets(operator: str, left: Values, right: Values) -> tuple[list[tuple[str, bool]], bool]:
    """Return whether the sets of each trace are equal, or have nothing in common; and whether any side is empty.

    A trace in which both sides are empty is left out.
    """
    oks, has_empty_side = [], False
    for trace in dict.fromkeys(trace for trace, _ in (*left, *right)):
        first, second = ([value for key, value in values if key == trace] for values in (left, right))
        if not first or not second:
            has_empty_side = True
        elif operator == "!=":
            oks.append((trace, not any(_are_equal(one, other) for one in first for other in second)))
        else:
            equal = all(any(_are_equal(one, other) for other in second) for one in first)
            oks.append((trace, equal and all(any(_are_equal(one, other) for one in first) for other in second)))
    return oks, has_empty_side


def _are_equal(one: TypedValue, other: TypedValue) -> bool:
    if isinstance(one.value, list) or isinstance(other.value, list):
        raise NotCovered("arrays in sets of values")
    if one.kind == other.kind == "any":
        return convert(one, "text") == convert(other, "text")
    return relate("==", one, other)
