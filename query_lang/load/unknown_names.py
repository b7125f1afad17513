"""Warnings about names of services, operations and attributes that a store does not contain (yet)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from spanproof.collector.otlp.semantic_conventions import list_spellings
from spanproof.collector.traces.catalog import Catalog
from spanproof.query_lang.check.types import to_selection
from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names

ALWAYS_KNOWN_ATTRIBUTES: Final = ("resource.service.name", "scope.name", "scope.version")


def find_unknown_names(module: ProofModule, catalog: Catalog) -> tuple[Diagnostic, ...]:
    """Return a warning for each name in a file that the catalog does not contain, in the order of its text."""
    parts = [part for item in module.file.items for part in s.walk(item)]
    defined_names = {let.name.text for _, let in module.definitions.lets}
    defined_names |= {part.name.text for part in parts if isinstance(part, s.Let)}
    defined_names |= {name.text for part in parts if isinstance(part, s.Define) for name in part.parameters}
    finder = _UnknownNameFinder(catalog, frozenset(defined_names))
    warnings = (warning for item in module.file.items for warning in finder.find(item))
    return tuple(sorted(warnings, key=lambda diagnostic: diagnostic.at.start))


class _UnknownNameFinder:
    def __init__(self, catalog: Catalog, defined_names: frozenset[str]) -> None:
        self.catalog = catalog
        self.defined_names = defined_names  # names that the file itself defines

    def find(self, node: object) -> Iterator[Diagnostic]:
        match node:
            case s.SpanSelection():
                yield from self.find_in_target(node)
                children: Iterable[object] = [node.where] if node.where is not None else []
            case s.Function() if node.name in v.SELECTION_FUNCTIONS and node.arguments:
                first, *others = node.arguments
                about_traces = isinstance(first, s.Name) and first.text == "traces"
                children = others if about_traces else [to_selection(first) or first, *others]
            case s.Budget():
                for service, _ in node.parts:
                    yield from self.find_in_service(service)
                children = []
            case s.Name():
                yield from self.find_in_attribute(node)
                children = []
            case _:
                children = s.iter_children(node)
        for part in children:
            yield from self.find(part)

    def find_in_target(self, node: s.SpanSelection) -> Iterator[Diagnostic]:
        service_warnings = list(self.find_in_service(node.service))
        yield from service_warnings
        operation = self.read_plain_name(node.operation)
        if service_warnings or operation is None or node.operation is None:
            return
        service = self.read_plain_name(node.service)
        if node.service is not None and service is None:
            return  # a variable: the service is known only when the proof runs
        known = [
            name
            for known_service, names in self.catalog.operations.items()
            for name in names
            if service is None or known_service == service
        ]
        pattern = ".*".join(re.escape(part) for part in operation.split("*"))
        if not any(re.fullmatch(pattern, name, re.DOTALL) for name in known):
            of_service = f" of `{service}`" if service else ""
            help_ = suggest_names(operation, known)
            yield _make_warning(
                "unseen-operation", f"no operation `{operation}`{of_service} has been seen", node.operation, help_
            )

    def find_in_service(self, node: s.Name | s.Text | None) -> Iterator[Diagnostic]:
        name = self.read_plain_name(node)
        if node is not None and name is not None and name not in self.catalog.operations:
            help_ = suggest_names(name, self.catalog.operations)
            yield _make_warning("unseen-service", f"no service `{name}` has been seen", node, help_)

    def find_in_attribute(self, node: s.Name) -> Iterator[Diagnostic]:
        if "." not in node.text or node.text in (*self.defined_names, *ALWAYS_KNOWN_ATTRIBUTES):
            return
        name = node.text.removeprefix("span.")
        prefix, _, rest = name.partition(".")
        names = (
            [f"{prefix}.{spelling}" for spelling in list_spellings(rest)]
            if prefix in ("resource", "scope")
            else list_spellings(name)
        )
        if not set(names) & set(self.catalog.attributes):
            help_ = suggest_names(name, self.catalog.attributes)
            yield _make_warning("unseen-attribute", f"no span with an attribute `{name}` has been seen", node, help_)

    def read_plain_name(self, node: s.Name | s.Text | None) -> str | None:
        """Return a name as written, or None if it contains a variable."""
        if isinstance(node, s.Text):
            return None if any(isinstance(part, s.Name) for part in node.parts) else node.plain
        return None if node is None or node.text in self.defined_names else node.text


def _make_warning(id_: str, message: str, node: s.Name | s.Text, help_: str | None) -> Diagnostic:
    return Diagnostic(id_, message, node.at, help_, severity="warning")
