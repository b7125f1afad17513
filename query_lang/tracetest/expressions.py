"""Parser of Tracetest's expressions: ``attr:tracetest.response.body | json_path '$.id' = "7"``."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.tracetest.tokens import Locator, locate_tokens, split_tokens
from spanproof.query_lang.tracetest.unsupported import make_malformed_error

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<comparator>!=|<=|>=|=|<|>|contains\b|not-contains\b)"
    r"|(?P<duration>\d+(?:\.\d+)?\s?(?:ns|us|ms|s|m|h)\b)|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<attribute>attr:\w[\w.-]*)|(?P<variable>(?:env|var):\w[\w.]*)"
    r"|(?P<text>\"(?:\\\"|[^\"])*\"|'(?:\\'|[^'])*')|(?P<word>[A-Za-z]\w*)|(?P<mark>[-+*/(),|\[\]]))"
)
_INTERPOLATION: Final = re.compile(r"\$\{([^}]+)\}")
Comparator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "contains", "not-contains"]


class TracetestNumber(Struct, frozen=True):
    """Number, as written."""

    text: str
    at: TextRange


class TracetestDuration(Struct, frozen=True):
    """Number with its unit."""

    text: str
    at: TextRange


class TracetestAttribute(Struct, frozen=True):
    """Attribute ``attr:name``."""

    name: str
    at: TextRange


class TracetestVariable(Struct, frozen=True):
    """Variable ``var:name``, or ``env:name`` in older versions."""

    name: str
    at: TextRange


class TracetestText(Struct, frozen=True):
    """Text in parts: literal parts and interpolated expressions."""

    parts: tuple[str | TracetestExpression, ...]
    at: TextRange

    @property
    def plain(self) -> str | None:
        """The text, or None if it has interpolated expressions."""
        return "".join(map(str, self.parts)) if all(isinstance(each, str) for each in self.parts) else None


class TracetestCall(Struct, frozen=True):
    """Function call ``name(arguments)``."""

    name: str
    at: TextRange


class TracetestArray(Struct, frozen=True):
    """Array ``[items]``."""

    items: tuple[Term, ...]
    at: TextRange


class TracetestPipe(Struct, frozen=True):
    """Filter ``| name arguments``."""

    name: str
    arguments: tuple[Term, ...]
    at: TextRange


class TracetestExpression(Struct, frozen=True):
    """Terms with operators between them, evaluated from left to right, and the filters of the result."""

    first: Term
    rest: tuple[tuple[str, Term], ...]
    pipes: tuple[TracetestPipe, ...]
    at: TextRange

    @property
    def terms(self) -> tuple[Term, ...]:
        """All terms."""
        return (self.first, *(term for _, term in self.rest))


class TracetestAssertion(Struct, frozen=True):
    """Assertion ``left comparator right``."""

    left: TracetestExpression
    comparator: Comparator
    right: TracetestExpression
    at: TextRange


Term: TypeAlias = (
    TracetestNumber
    | TracetestDuration
    | TracetestAttribute
    | TracetestVariable
    | TracetestText
    | TracetestCall
    | TracetestArray
)


def read_assertion(text: str, locate: Locator) -> TracetestAssertion:
    """Read an assertion. Raises DiagnosticError."""
    parser = _ExpressionParser(text, locate)
    left = parser.parse_expression()
    comparator = parser.peek("comparator")
    if comparator is None:
        raise parser.make_unexpected_error("a comparison")
    parser.next += 1
    right = parser.parse_expression()
    parser.expect_end()
    return TracetestAssertion(left, comparator, right, locate(0, len(text)))  # type: ignore[arg-type]  # matched by the pattern


def read_expression(text: str, locate: Locator) -> TracetestExpression:
    """Read an expression. Raises DiagnosticError."""
    parser = _ExpressionParser(text, locate)
    expression = parser.parse_expression()
    parser.expect_end()
    return expression


def read_interpolated(text: str, locate: Locator) -> TracetestText:
    """Read a text with ``${…}`` in it. Raises DiagnosticError."""
    parts: list[str | TracetestExpression] = []
    end = 0
    for matched in _INTERPOLATION.finditer(text):
        parts.append(text[end : matched.start()])
        parts.append(read_expression(matched[1], _shift_locator(locate, matched.start(1))))
        end = matched.end()
    parts.append(text[end:])
    return TracetestText(tuple(part for part in parts if part != ""), locate(0, len(text)))


def _shift_locator(locate: Locator, by: int) -> Locator:
    return lambda start, end: locate(by + start, by + end)


class _ExpressionParser:
    def __init__(self, text: str, locate: Locator) -> None:
        self.text, self.locate = text, locate
        self.tokens = split_tokens(text, _TOKEN, locate, "an expression")
        self.next = 0

    def peek(self, kind: str) -> str | None:
        """Return the next token if it has the given kind."""
        return self.tokens[self.next][kind] if self.next < len(self.tokens) else None

    def skip_mark(self, mark: str) -> bool:
        if self.peek("mark") != mark:
            return False
        self.next += 1
        return True

    def expect_end(self) -> None:
        if self.next < len(self.tokens):
            raise self.make_unexpected_error("the end")

    def make_unexpected_error(self, wanted: str) -> Exception:
        if self.next < len(self.tokens):
            return make_malformed_error(f"{wanted} is expected here", self.locate_tokens_between(self.next))
        length = len(self.text.rstrip())
        return make_malformed_error(f"{wanted} is expected after this", self.locate(max(length - 1, 0), max(length, 1)))

    def locate_tokens_between(self, first: int, last: int | None = None) -> TextRange:
        return locate_tokens(self.tokens[first], self.tokens[first if last is None else last], self.locate)

    def parse_expression(self) -> TracetestExpression:
        first_token = self.next
        first = self.parse_term()
        rest, pipes = [], []
        while (operator := self.peek("mark")) in ("+", "-", "*", "/"):
            self.next += 1
            rest.append((str(operator), self.parse_term()))
        while self.skip_mark("|"):
            name = self.peek("word")
            if name is None:
                raise self.make_unexpected_error("the name of a filter")
            at = self.locate_tokens_between(self.next)
            self.next += 1
            arguments = []
            while self._is_term_next():
                arguments.append(self.parse_term())
            pipes.append(TracetestPipe(name, tuple(arguments), at))
        return TracetestExpression(
            first, tuple(rest), tuple(pipes), self.locate_tokens_between(first_token, self.next - 1)
        )

    def _is_term_next(self) -> bool:
        kinds = ("duration", "number", "attribute", "variable", "text")
        return any(self.peek(kind) for kind in kinds)

    def parse_term(self) -> Term:
        if self.next >= len(self.tokens):
            raise self.make_unexpected_error("a value")
        token, at = self.tokens[self.next], self.locate_tokens_between(self.next)
        self.next += 1
        if token["duration"]:
            return TracetestDuration(re.sub(r"\s", "", token["duration"]), at)
        if token["number"]:
            return TracetestNumber(token["number"], at)
        if token["attribute"]:
            return TracetestAttribute(token["attribute"].removeprefix("attr:"), at)
        if token["variable"]:
            return TracetestVariable(token["variable"].partition(":")[2], at)
        if token["text"]:
            begin = token.end() - len(token["text"]) + 1
            inner = re.sub(r"\\(['\"])", r"\1", token["text"][1:-1])
            return replace(read_interpolated(inner, _shift_locator(self.locate, begin)), at=at)
        if token["word"] and self.skip_mark("("):
            while not self.skip_mark(")"):
                self.parse_term()
                self.skip_mark(",")
            return TracetestCall(token["word"], at)
        if token["mark"] == "[":
            items = []
            while not self.skip_mark("]"):
                items.append(self.parse_term())
                self.skip_mark(",")
            return TracetestArray(tuple(items), at)
        self.next -= 1
        raise self.make_unexpected_error("a value")
