"""Walking and rewriting of syntax trees."""

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
    """Return a node with the nodes in it that `change` returns others for replaced, outermost first."""
    changed = replace_node(node)
    if changed is not node:
        return changed  # type: ignore[return-value]  # as the one who changes it knows
    if isinstance(node, tuple):
        return tuple(rewrite(each, replace_node) for each in node)  # type: ignore[return-value]  # a tuple still
    if not hasattr(node, "at"):
        return node
    values = {field.name: getattr(node, field.name) for field in fields(node)}  # type: ignore[arg-type]  # a dataclass
    return replace(node, **{name: rewrite(value, replace_node) for name, value in values.items()})  # type: ignore[type-var]


def walk(node: object) -> Iterator[object]:
    """Yield `node` and all nodes below it."""
    yield node
    for child in iter_children(node):
        yield from walk(child)
