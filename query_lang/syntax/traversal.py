"""Traversal and rewriting of syntax trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import TypeVar

T = TypeVar("T")


def iter_children(node: object) -> Iterator[object]:
    """Yield the nodes directly below `node`, in the order of the text."""
    values = [getattr(node, field.name) for field in fields(node)]  # type: ignore[arg-type]  # every node is a dataclass
    while values:
        value = values.pop(0)
        if isinstance(value, tuple):
            values[:0] = value
        elif hasattr(value, "at"):
            yield value


def rewrite(node: T, replace_node: Callable[[object], object]) -> T:
    """Return `node` with child inner node replaced by the result of `replace_node`, outermost first.

    A replacement is not traversed further.
    """
    replacement = replace_node(node)
    if replacement is not node:
        return replacement  # type: ignore[return-value]  # `replace_node` keeps the type
    if isinstance(node, tuple):
        return tuple(rewrite(child, replace_node) for child in node)  # type: ignore[return-value]  # still a tuple
    if not hasattr(node, "at"):
        return node
    values = {field.name: getattr(node, field.name) for field in fields(node)}  # type: ignore[arg-type]  # a dataclass
    return replace(node, **{name: rewrite(value, replace_node) for name, value in values.items()})  # type: ignore[type-var]


def walk(node: object) -> Iterator[object]:
    """Yield `node` and all nodes below it."""
    yield node
    for child in iter_children(node):
        yield from walk(child)
