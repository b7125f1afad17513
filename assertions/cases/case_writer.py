"""Stored traces as the text of a case file, to start from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.query_lang.syntax.literals import is_name
from spanproof.query_lang.syntax.printer import format_string, is_plain_name

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

UNKNOWN_SERVICE: Final = "unknown_service"
_INDENT: Final = "  "
_KIND_NAMES: Final = {number: name for name, number in SPAN_KINDS.items()}
_STATUS_WORDS: Final = {1: "ok", 2: "error"}
_NS_PER_MS: Final = 10**6
# Words that mean something else at the start of a span line, or as a value.
_RESERVED: Final = frozenset(("orphan", "shared", "resource", "true", "false"))


class _Node(Struct, eq=False):
    """A span in the tree of its trace."""

    span: Span
    service: str
    resource: str
    scope: str
    children: list[_Node] = field(default_factory=list)
    orphan: bool = False
    shared: bool = False
    label: str = ""


def format_case(parts: Iterable[TracesData]) -> str:
    """Return a case file with these traces: their spans, and assertions to start with, as comments."""
    return _CaseWriter(parts).format()


class _CaseWriter:
    def __init__(self, parts: Iterable[TracesData]) -> None:
        self._omitted: Counter[str] = Counter()
        self._nodes: dict[bytes, dict[bytes, list[_Node]]] = {}
        for node in self._read_nodes(parts):
            spans = self._nodes.setdefault(node.span.trace_id, {})
            same_id = spans.setdefault(node.span.span_id, [])
            if not any(_is_same(node, other) for other in same_id):  # a span that was sent twice counts once
                same_id.append(node)
        self._zero_ns = min(node.span.start_time_unix_nano for node in self._list_nodes())
        self._number_link_targets()

    def format(self) -> str:
        """Return the text of the file."""
        traces = [self._format_trace(trace_id, spans) for trace_id, spans in self._nodes.items()]
        omitted = [f"# Not in this file: {what} ({count})." for what, count in self._omitted.items()]
        return "\n".join([*omitted, *(("",) if omitted else ()), *traces, *self._suggest_assertions()])

    def _read_nodes(self, parts: Iterable[TracesData]) -> Iterator[_Node]:
        for part in parts:
            for resource_spans in part.resource_spans:
                attributes = resource_spans.resource.attributes
                service = _find_service(attributes)
                kept = [each for each in attributes if each.key != "service.name"]
                resource = self._format_attributes(kept, "resource attributes")
                for scope_spans in resource_spans.scope_spans:
                    scope = self._format_scope(scope_spans.scope)
                    for span in scope_spans.spans:
                        yield _Node(span, service, resource, scope)

    def _list_nodes(self) -> Iterator[_Node]:
        return (node for spans in self._nodes.values() for same_id in spans.values() for node in same_id)

    def _number_link_targets(self) -> None:
        number = 0
        for node in self._list_nodes():
            for link in node.span.links:
                targets = self._nodes.get(link.trace_id, {}).get(link.span_id)
                if targets and not targets[0].label:
                    number += 1
                    targets[0].label = f"s{number}"

    def _format_trace(self, trace_id: bytes, spans: dict[bytes, list[_Node]]) -> str:
        roots = _build_tree(spans, self._omitted)
        nodes = [node for same_id in spans.values() for node in same_id]
        defaults = _find_common_resources(nodes)
        lines = [f"trace {trace_id.hex()}"]
        lines += [f"{_INDENT}resource {_quote(service)} {text}" for service, text in defaults.items() if text != "{}"]
        pending = [(node, 1) for node in reversed(roots)]
        while pending:
            node, depth = pending.pop()
            lines.append(_INDENT * depth + self._format_span(node, defaults[node.service]))
            pending += [(child, depth + 1) for child in reversed(_sort_by_start(node.children))]
        return "\n".join(lines) + "\n"

    def _format_span(self, node: _Node, default_resource: str) -> str:
        span = node.span
        words = [word for word, is_set in (("orphan", node.orphan), ("shared", node.shared)) if is_set]
        if span.kind not in _KIND_NAMES:
            self._omitted["unknown span kinds"] += 1
        end_ns = span.end_time_unix_nano
        times = f"{self._format_time(span.start_time_unix_nano)}..{self._format_time(end_ns) if end_ns else ''}"
        words += [_quote(node.service), format_string(span.name), _KIND_NAMES.get(span.kind, "unspecified"), times]
        if span.status.code in _STATUS_WORDS:
            words.append(_STATUS_WORDS[span.status.code])
            if span.status.message:
                words.append(format_string(span.status.message))
        elif span.status.message:
            self._omitted["messages of spans without a status"] += 1
        if (attributes := self._format_attributes(span.attributes, "attributes")) != "{}":
            words.append(attributes)
        if node.resource != default_resource:
            words.append(f"resource {node.resource}")
        if node.scope != "{}":
            words.append(f"scope {node.scope}")
        for event in span.events:
            at = self._format_time(event.time_unix_nano or span.start_time_unix_nano)
            if not event.time_unix_nano:
                self._omitted["that events have no time"] += 1
            attributes = self._format_attributes(event.attributes, "attributes of events")
            words.append(f"event {format_string(event.name)} at {at}{'' if attributes == '{}' else f' {attributes}'}")
        for link in span.links:
            targets = self._nodes.get(link.trace_id, {}).get(link.span_id)
            if targets:
                words.append(f"link {targets[0].label}")
                self._omitted["attributes of links"] += len(link.attributes)
            else:
                self._omitted["links to spans that are not in this file"] += 1
        if node.label:
            words.append(f"as {node.label}")
        self._omitted += Counter()  # drops zeros
        return " ".join(words)

    def _format_time(self, time_ns: int) -> str:
        """Return a time as milliseconds since the first start, exactly."""
        return f"{format((Decimal(time_ns - self._zero_ns) / _NS_PER_MS).normalize(), 'f')}ms"

    def _format_scope(self, scope: InstrumentationScope) -> str:
        known = [
            (key, format_string(value)) for key, value in (("name", scope.name), ("version", scope.version)) if value
        ]
        return _format_pairs([*known, *self._write_values(scope.attributes, "scope attributes")])

    def _format_attributes(self, attributes: Iterable[KeyValue], what: str) -> str:
        return _format_pairs(self._write_values(attributes, what))

    def _write_values(self, attributes: Iterable[KeyValue], what: str) -> Iterator[tuple[str, str]]:
        for attribute in attributes:
            text = _format_value(attribute.value)
            if text is None:
                self._omitted[f"{what} that are missing, infinite, bytes or maps"] += 1
            else:
                yield attribute.key, text

    def _suggest_assertions(self) -> Iterator[str]:
        """Yield assertions that the first trace meets, as comments."""
        spans = next(iter(self._nodes.values()))
        nodes = [node for same_id in spans.values() for node in same_id]
        root = min(
            nodes, key=lambda node: (node.orphan, bool(node.span.parent_span_id), node.span.start_time_unix_nano)
        )
        alike = [node for node in nodes if (node.service, node.span.name) == (root.service, root.span.name)]
        yield "# What must hold of these spans; `spanproof case` judges an assertion once its # is removed."
        yield f"# assert some span {_quote_claim(root.service)} {format_string(root.span.name)}"
        yield "#   pass"
        if all(node.span.end_time_unix_nano for node in alike):
            most_ns = max(node.span.end_time_unix_nano - node.span.start_time_unix_nano for node in alike)
            most = f"{max(math.ceil(most_ns / _NS_PER_MS), 1)}ms"
            yield f"# assert every {_quote_claim(root.service)} {format_string(root.span.name)} has duration <= {most}"
            yield "#   pass"
        yield ""


def _build_tree(spans: dict[bytes, list[_Node]], omitted: Counter[str]) -> list[_Node]:
    """Link children to their parents; return the spans without a parent in the trace, in the order of their starts."""
    roots: list[_Node] = []
    firsts: list[_Node] = []
    for same_id in spans.values():
        first, *others = sorted(same_id, key=lambda node: (node.span.kind != SPAN_KINDS["client"], node.span.kind))
        firsts.append(first)
        for other in others:
            if other.span.parent_span_id == first.span.parent_span_id:
                other.shared = True
                first.children.append(other)
            else:
                firsts.append(other)
                omitted["that spans with different parents have the same id"] += 1
    for first in firsts:
        parents = spans.get(first.span.parent_span_id)
        if parents:
            _choose_parent(parents).children.append(first)
        else:
            first.orphan = bool(first.span.parent_span_id)
            roots.append(first)
    reached = _list_reachable(roots)
    for first in firsts:
        if first not in reached:  # its ancestors form a cycle
            omitted["parents that are their own descendants"] += 1
            _choose_parent(spans[first.span.parent_span_id]).children.remove(first)
            first.orphan = True
            roots.append(first)
            reached |= _list_reachable([first])
    return _sort_by_start(roots)


def _choose_parent(same_id: Sequence[_Node]) -> _Node:
    """Return, of the spans with the id of a parent, the one that was there last: the server's."""
    return next((node for node in same_id if node.shared), same_id[0])


def _list_reachable(roots: Iterable[_Node]) -> set[_Node]:
    reached: set[_Node] = set()
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending += node.children
    return reached


def _sort_by_start(nodes: Iterable[_Node]) -> list[_Node]:
    return sorted(nodes, key=lambda node: node.span.start_time_unix_nano)


def _is_same(node: _Node, other: _Node) -> bool:
    return (node.service, node.resource, node.scope) == (other.service, other.resource, other.scope) and (
        node.span == other.span
    )


def _find_common_resources(nodes: Iterable[_Node]) -> dict[str, str]:
    """Return the most frequent resource of each service."""
    counts: dict[str, Counter[str]] = {}
    for node in nodes:
        counts.setdefault(node.service, Counter())[node.resource] += 1
    # an empty resource cannot replace another one
    return {
        service: "{}" if "{}" in by_resource else by_resource.most_common(1)[0][0]
        for service, by_resource in counts.items()
    }


def _find_service(attributes: Iterable[KeyValue]) -> str:
    names = (each.value.string_value for each in attributes if each.key == "service.name")
    return next(names, "") or UNKNOWN_SERVICE


def _format_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    text = ", ".join(f"{_quote(key)}: {value}" for key, value in pairs)
    return f"{{ {text} }}" if text else "{}"


def _format_value(value: AnyValue) -> str | None:
    """Return a value as a case file writes it, or None if it cannot."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        items = [_format_value(item) for item in value.array_value.values]
        return None if None in items else f"[{', '.join(str(item) for item in items)}]"
    if kind == "double_value" and math.isfinite(value.double_value):
        text = format(Decimal(repr(value.double_value)), "f")
        return text if "." in text else f"{text}.0"
    writers: dict[str, Callable[[], str]] = {
        "string_value": lambda: format_string(value.string_value),
        "bool_value": lambda: "true" if value.bool_value else "false",
        "int_value": lambda: str(value.int_value),
    }
    return writers[kind]() if kind in writers else None


def _quote(name: str) -> str:
    return name if is_name(name) and name not in _RESERVED else format_string(name)


def _quote_claim(service: str) -> str:
    return service if is_plain_name(service) else format_string(service)
