"""Names of services, operations and attributes that a store has not seen: warnings, as they may be yet to come."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from spanproof.collector.seen import Seen
from spanproof.collector.semconv import spellings
from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.diagnostics import Diagnostic, did_you_mean
from spanproof.query_lang.modules import Module
from spanproof.query_lang.types import as_selection

ALWAYS_THERE: Final = ("resource.service.name", "scope.name", "scope.version")


def find_unseen(module: Module, seen: Seen) -> tuple[Diagnostic, ...]:
    """Return a warning for each name in a file that stands for nothing seen, in the order of its text."""
    parts = [part for item in module.file.items for part in s.walk(item)]
    own = {let.name.text for _, let in module.library.lets}
    own |= {part.name.text for part in parts if isinstance(part, s.Let)}
    own |= {name.text for part in parts if isinstance(part, s.Define) for name in part.parameters}
    finder = _Finder(seen, frozenset(own))
    found = (each for item in module.file.items for each in finder.visit(item))
    return tuple(sorted(found, key=lambda diagnostic: diagnostic.at.start))


class _Finder:
    def __init__(self, seen: Seen, own: frozenset[str]) -> None:
        self.seen = seen
        self.own = own  # names that the file itself gives a meaning

    def visit(self, node: object) -> Iterator[Diagnostic]:
        match node:
            case s.Target():
                yield from self.target(node)
                below: Iterable[object] = [node.where] if node.where is not None else []
            case s.Function() if node.name in v.SELECTION_FUNCTIONS and node.arguments:
                first, *others = node.arguments
                about_traces = isinstance(first, s.Name) and first.text == "traces"
                below = others if about_traces else [as_selection(first) or first, *others]
            case s.Budget():
                for service, _ in node.parts:
                    yield from self.service(service)
                below = []
            case s.Name():
                yield from self.attribute(node)
                below = []
            case _:
                below = s.children(node)
        for part in below:
            yield from self.visit(part)

    def target(self, node: s.Target) -> Iterator[Diagnostic]:
        unseen = list(self.service(node.service))
        yield from unseen
        operation = self.plain(node.operation)
        if unseen or operation is None or node.operation is None:
            return
        service = self.plain(node.service)
        if node.service is not None and service is None:
            return  # a variable: which service it is shows when it runs
        known = [
            name for each, names in self.seen.operations.items() for name in names if service is None or each == service
        ]
        pattern = ".*".join(re.escape(part) for part in operation.split("*"))
        if not any(re.fullmatch(pattern, name, re.DOTALL) for name in known):
            whose = f" of `{service}`" if service else ""
            help_ = did_you_mean(operation, known)
            yield _warn("unseen-operation", f"no operation `{operation}`{whose} has been seen", node.operation, help_)

    def service(self, node: s.Name | s.Text | None) -> Iterator[Diagnostic]:
        name = self.plain(node)
        if node is not None and name is not None and name not in self.seen.operations:
            help_ = did_you_mean(name, self.seen.operations)
            yield _warn("unseen-service", f"no service `{name}` has been seen", node, help_)

    def attribute(self, node: s.Name) -> Iterator[Diagnostic]:
        if "." not in node.text or node.text in (*self.own, *ALWAYS_THERE):
            return
        name = node.text.removeprefix("span.")
        where, _, rest = name.partition(".")
        names = [f"{where}.{each}" for each in spellings(rest)] if where in ("resource", "scope") else spellings(name)
        if not set(names) & set(self.seen.attributes):
            help_ = did_you_mean(name, self.seen.attributes)
            yield _warn("unseen-attribute", f"no span with an attribute `{name}` has been seen", node, help_)

    def plain(self, node: s.Name | s.Text | None) -> str | None:
        """Return a name as it stands; None where a variable takes part in it."""
        if isinstance(node, s.Text):
            return None if any(isinstance(part, s.Name) for part in node.parts) else node.plain
        return None if node is None or node.text in self.own else node.text


def _warn(id_: str, message: str, node: s.Name | s.Text, help_: str | None) -> Diagnostic:
    return Diagnostic(id_, message, node.at, help_, severity="warning")
