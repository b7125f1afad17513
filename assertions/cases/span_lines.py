"""Span lines of case files, token by token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from spanproof.assertions.cases.scenario import CaseError, CaseEvent, CaseSpan
from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS
from spanproof.query_lang.check.constants import JsonValue
from spanproof.query_lang.syntax.literals import NAME, DiagnosticError, read_duration_ns, read_string_literal
from spanproof.query_lang.syntax.nodes import TextRange

TOKEN_PATTERN: Final = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<span>\.\.)|(?P<number>-?[0-9]+(?:\.[0-9]+)?[A-Za-zµ%]*)'
    rf"|(?P<name>{NAME})|(?P<mark>[{{}}\[\]:,]))"
)


class CaseLine(Struct):
    """A line of a case file, stripped; ``number`` counts from 1."""

    number: int
    indent: int
    text: str


class SpanLineReader:
    """Parser of one span line."""

    def __init__(self, line: CaseLine) -> None:
        self.line = line
        self.tokens = list(_tokenize(line))

    def read(self, parent: int | None) -> tuple[CaseSpan, int]:
        """Parse the line. Return the span and its number of copies. Raises :class:`CaseError`."""
        orphan, shared = self._skip_token("orphan"), self._skip_token("shared")
        if shared and parent is None:
            raise CaseError(self.line.number, "a shared span needs a span above whose id it shares")
        service, name, kind = self._read_value(), self._read_value(), str(self._read_value())
        if kind not in SPAN_KINDS:
            raise CaseError(self.line.number, f"`{kind}` is not a span kind: {', '.join(SPAN_KINDS)}")
        start = self._read_duration()
        self._expect("..")
        end = self._read_duration() if self._next_kind() == "number" else None
        span = CaseSpan(str(service), str(name), SPAN_KINDS[kind], start, end, parent, orphan, shared)
        copies = 1
        while self.tokens:
            if self.tokens[0] == ("mark", "{"):
                span = replace(span, attributes={**span.attributes, **self._read_object()})
                continue
            match self._take_token()[1]:
                case "error":
                    span = replace(span, status=2, status_message=self._read_message())
                case "ok":
                    span = replace(span, status=1, status_message=self._read_message())
                case "resource":
                    span = replace(span, resource=self._read_object())
                case "scope":
                    span = replace(span, scope=self._read_object())
                case "event":
                    span = replace(span, events=(*span.events, self._read_event()))
                case "link":
                    span = replace(span, links=(*span.links, self._take_token()[1]))
                case "as":
                    span = replace(span, label=self._take_token()[1])
                case "x":
                    copies = self._read_count()
                case word:
                    raise CaseError(self.line.number, f"`{word}` is not an option of a span")
        return span, copies

    def read_resource(self) -> tuple[str, dict[str, JsonValue]]:
        """Parse the line as the resource of the spans of a service. Raises :class:`CaseError`."""
        self._expect("resource")
        service, resource = str(self._read_value()), self._read_object()
        if self.tokens:
            raise CaseError(self.line.number, f"`{self.tokens[0][1]}` follows the resource")
        return service, resource

    @property
    def is_resource(self) -> bool:
        """Whether the line is a resource; a span of a service called `resource` has a name in this place."""
        return [text for _, text in self.tokens[:1] + self.tokens[2:3]] == ["resource", "{"]

    def _next_kind(self) -> str:
        return self.tokens[0][0] if self.tokens else ""

    def _read_message(self) -> str:
        return str(self._read_value()) if self._next_kind() == "string" else ""

    def _read_count(self) -> int:
        text = self._take_token()[1]
        if not text.isdecimal():
            raise CaseError(self.line.number, f"`{text}` is not a number of copies")
        return int(text)

    def _read_event(self) -> CaseEvent:
        name = str(self._read_value())
        self._expect("at")
        at_ns = self._read_duration()
        attributes = self._read_object() if self.tokens and self.tokens[0] == ("mark", "{") else {}
        return CaseEvent(name, at_ns, attributes)

    def _read_object(self) -> dict[str, JsonValue]:
        self._expect("{")
        members: dict[str, JsonValue] = {}
        while not self._skip_token("}"):
            key = str(self._read_value())
            self._expect(":")
            members[key] = self._read_value()
            self._skip_token(",")
        return members

    def _read_value(self) -> JsonValue:
        kind, text = self._take_token()
        if kind == "string":
            return _unquote(text, self.line.number)
        if kind == "number":
            if text[-1] not in "0123456789":
                raise CaseError(self.line.number, f"`{text}` is not an attribute value: it has a unit")
            number = Decimal(text)
            return int(number) if "." not in text else float(number)
        if text == "[":
            items: list[JsonValue] = []
            while not self._skip_token("]"):
                items.append(self._read_value())
                self._skip_token(",")
            return items
        return {"true": True, "false": False}.get(text, text)

    def _read_duration(self) -> int:
        return parse_duration(self._take_token()[1], self.line.number)

    def _take_token(self) -> tuple[str, str]:
        if not self.tokens:
            raise CaseError(self.line.number, "this line ends too early")
        return self.tokens.pop(0)

    def _expect(self, text: str) -> None:
        token = self._take_token()[1]
        if token != text:
            raise CaseError(self.line.number, f"expected `{text}`, not `{token}`")

    def _skip_token(self, text: str) -> bool:
        if self.tokens and self.tokens[0][1] == text and self.tokens[0][0] != "string":
            self.tokens.pop(0)
            return True
        return False


def _tokenize(line: CaseLine) -> Iterator[tuple[str, str]]:
    offset = 0
    while offset < len(line.text) and not line.text[offset:].lstrip().startswith("#"):
        match = TOKEN_PATTERN.match(line.text, offset)
        if match is None:
            raise CaseError(line.number, f"`{line.text[offset:].strip()[:20]}` cannot be read")
        yield str(match.lastgroup), match.group(str(match.lastgroup))
        offset = match.end()


def read_strings(text: str) -> Iterator[str]:
    """Yield the values of the quoted strings in a text."""
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"', text):
        yield _unquote(match.group(), 0)


def _unquote(literal: str, line: int) -> str:
    try:
        return read_string_literal(literal, TextRange(0, len(literal))).plain
    except DiagnosticError as error:
        raise CaseError(line, str(error)) from None


def parse_duration(text: str, line: int) -> int:
    """Return a duration in nanoseconds. Raises :class:`CaseError`."""
    try:
        return read_duration_ns(text)
    except ValueError as error:
        raise CaseError(line, str(error)) from None
