"""Tracetest's expressions: ``attr:tracetest.response.body | json_path '$.id' = "7"``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from spanproof.query_lang.syntax import Source
from spanproof.query_lang.tracetest.constructs import malformed
from spanproof.query_lang.tracetest.tokens import Place, locate_tokens, split_tokens

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<comparator>!=|<=|>=|=|<|>|contains\b|not-contains\b)"
    r"|(?P<duration>\d+(?:\.\d+)?\s?(?:ns|us|ms|s|m|h)\b)|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<attribute>attr:\w[\w.-]*)|(?P<variable>(?:env|var):\w[\w.]*)"
    r"|(?P<text>\"(?:\\\"|[^\"])*\"|'(?:\\'|[^'])*')|(?P<word>[A-Za-z]\w*)|(?P<mark>[-+*/(),|\[\]]))"
)
_INTERPOLATED: Final = re.compile(r"\$\{([^}]+)\}")
Comparator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "contains", "not-contains"]


@dataclass(frozen=True, slots=True)
class Number:
    """A number, as it is written."""

    text: str
    at: Source


@dataclass(frozen=True, slots=True)
class Duration:
    """A number with its unit."""

    text: str
    at: Source


@dataclass(frozen=True, slots=True)
class Attribute:
    """``attr:name``."""

    name: str
    at: Source


@dataclass(frozen=True, slots=True)
class Variable:
    """``var:name``, or ``env:name`` as older versions have it."""

    name: str
    at: Source


@dataclass(frozen=True, slots=True)
class Text:
    """A text, in parts: what stands there, and what is put in."""

    parts: tuple[str | Expression, ...]
    at: Source

    @property
    def plain(self) -> str | None:
        """The text, if nothing is put in."""
        return "".join(map(str, self.parts)) if all(isinstance(each, str) for each in self.parts) else None


@dataclass(frozen=True, slots=True)
class Call:
    """``name(arguments)``."""

    name: str
    at: Source


@dataclass(frozen=True, slots=True)
class Array:
    """``[items]``."""

    items: tuple[Term, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Pipe:
    """``| name arguments``."""

    name: str
    arguments: tuple[Term, ...]
    at: Source


@dataclass(frozen=True, slots=True)
class Expression:
    """Terms with operators between them, from left to right, and what the outcome is piped through."""

    first: Term
    rest: tuple[tuple[str, Term], ...]
    pipes: tuple[Pipe, ...]
    at: Source

    @property
    def terms(self) -> tuple[Term, ...]:
        """All terms."""
        return (self.first, *(term for _, term in self.rest))


@dataclass(frozen=True, slots=True)
class Statement:
    """``left comparator right``."""

    left: Expression
    comparator: Comparator
    right: Expression
    at: Source


Term: TypeAlias = Number | Duration | Attribute | Variable | Text | Call | Array


def read_statement(text: str, place: Place) -> Statement:
    """Read an assertion. Raises Refused."""
    reader = _Reader(text, place)
    left = reader.expression()
    comparator = reader.peek("comparator")
    if comparator is None:
        raise reader.unexpected("a comparison")
    reader.next += 1
    right = reader.expression()
    reader.end()
    return Statement(left, comparator, right, place(0, len(text)))  # type: ignore[arg-type]  # as the pattern has it


def read_expression(text: str, place: Place) -> Expression:
    """Read an expression. Raises Refused."""
    reader = _Reader(text, place)
    found = reader.expression()
    reader.end()
    return found


def read_interpolated(text: str, place: Place) -> Text:
    """Read a text with ``${…}`` in it. Raises Refused."""
    parts: list[str | Expression] = []
    end = 0
    for matched in _INTERPOLATED.finditer(text):
        parts.append(text[end : matched.start()])
        parts.append(read_expression(matched[1], _shift(place, matched.start(1))))
        end = matched.end()
    parts.append(text[end:])
    return Text(tuple(part for part in parts if part != ""), place(0, len(text)))


def _shift(place: Place, by: int) -> Place:
    return lambda start, end: place(by + start, by + end)


class _Reader:
    def __init__(self, text: str, place: Place) -> None:
        self.text, self.place = text, place
        self.tokens = split_tokens(text, _TOKEN, place, "an expression")
        self.next = 0

    def peek(self, kind: str) -> str | None:
        """Return the next token if it is of a kind."""
        return self.tokens[self.next][kind] if self.next < len(self.tokens) else None

    def take(self, mark: str) -> bool:
        if self.peek("mark") != mark:
            return False
        self.next += 1
        return True

    def end(self) -> None:
        if self.next < len(self.tokens):
            raise self.unexpected("the end")

    def unexpected(self, wanted: str) -> Exception:
        if self.next < len(self.tokens):
            return malformed(f"{wanted} is expected here", self.where(self.next))
        length = len(self.text.rstrip())
        return malformed(f"{wanted} is expected after this", self.place(max(length - 1, 0), max(length, 1)))

    def where(self, first: int, last: int | None = None) -> Source:
        return locate_tokens(self.tokens[first], self.tokens[first if last is None else last], self.place)

    def expression(self) -> Expression:
        begin = self.next
        first = self.term()
        rest, pipes = [], []
        while (operator := self.peek("mark")) in ("+", "-", "*", "/"):
            self.next += 1
            rest.append((str(operator), self.term()))
        while self.take("|"):
            name = self.peek("word")
            if name is None:
                raise self.unexpected("the name of a filter")
            where = self.where(self.next)
            self.next += 1
            arguments = []
            while self._term_is_next():
                arguments.append(self.term())
            pipes.append(Pipe(name, tuple(arguments), where))
        return Expression(first, tuple(rest), tuple(pipes), self.where(begin, self.next - 1))

    def _term_is_next(self) -> bool:
        kinds = ("duration", "number", "attribute", "variable", "text")
        return any(self.peek(kind) for kind in kinds)

    def term(self) -> Term:
        if self.next >= len(self.tokens):
            raise self.unexpected("a value")
        token, at = self.tokens[self.next], self.where(self.next)
        self.next += 1
        if token["duration"]:
            return Duration(re.sub(r"\s", "", token["duration"]), at)
        if token["number"]:
            return Number(token["number"], at)
        if token["attribute"]:
            return Attribute(token["attribute"].removeprefix("attr:"), at)
        if token["variable"]:
            return Variable(token["variable"].partition(":")[2], at)
        if token["text"]:
            begin = token.end() - len(token["text"]) + 1
            inner = re.sub(r"\\(['\"])", r"\1", token["text"][1:-1])
            return replace(read_interpolated(inner, _shift(self.place, begin)), at=at)
        if token["word"] and self.take("("):
            while not self.take(")"):
                self.term()
                self.take(",")
            return Call(token["word"], at)
        if token["mark"] == "[":
            items = []
            while not self.take("]"):
                items.append(self.term())
                self.take(",")
            return Array(tuple(items), at)
        self.next -= 1
        raise self.unexpected("a value")
