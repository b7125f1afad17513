"""Traversal and rewriting of syntax trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import asdict, astuple, replace

T = TypeVar("T")


def iter_children(node: object) -> Iterator[object]:
    """Yield the nodes directly below `node`, in the order of the text."""
    values = list(astuple(node)) if isinstance(node, Struct) else []
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
    if not isinstance(node, Struct):
        return node
    return replace(node, **{name: rewrite(value, replace_node) for name, value in asdict(node).items()})


def walk(node: object) -> Iterator[object]:
    """Yield `node` and all nodes below it."""
    yield node
    for child in iter_children(node):
        yield from walk(child)
