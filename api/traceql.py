"""TraceQL, as far as one set of spans goes, as SQL: ``{ resource.service.name = "shop" && duration > 100ms }``.

Whatever else TraceQL has (pipelines, structure, aggregates, events) is refused, with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from spanproof.api.traceql_fields import INTRINSICS, Attribute, Intrinsic, compare_attribute, read_field
from spanproof.collector.semconv import SPAN_KINDS, STATUS_CODES
from spanproof.query_lang.conditions import Parameters, Value, comparison
from spanproof.query_lang.literals import TOO_MUCH, UNITS_NS, read_duration_ns

_UNITS = "|".join(sorted(UNITS_NS.keys() - {"d"}, key=len, reverse=True))
_GO_DURATION = re.compile(rf"(?:\d+(?:\.\d+)?(?:{_UNITS}))+", re.ASCII)
_TOKEN = re.compile(
    rf"""
      (?P<space>\s+ | //[^\n]* | /\*.*?\*/)
    | (?P<text>"(?:[^"\\]|\\.)*" | `[^`]*`)
    | (?P<duration>-?{_GO_DURATION.pattern})(?![\w.])
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<attribute>(?:[a-z]+)?\.(?:[^\s{{}}()=~!<>&|^,"`]|"(?:[^"\\]|\\.)*")+)
    | (?P<word>[A-Za-z]+(?::[A-Za-z]+)?)
    | (?P<mark>&&|\|\||=~|!~|!=|>=|<=|>>|[{{}}()=<>|!~&])
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_OPERATORS: Final = {"=": "=="} | {each: each for each in ("!=", "=~", "!~", ">", ">=", "<", "<=")}
_EQUALITY: Final = ("=", "!=")
_TEXTUAL: Final = ("=", "!=", "=~", "!~")
_NUMERIC: Final = ("=", "!=", ">", ">=", "<", "<=")
_WORDS: Final = {"status": STATUS_CODES, "kind": SPAN_KINDS}

# what a query may hold; more would be more than the database nests
_MOST_COMPARISONS, _DEEPEST = 100, 20


class TraceQLError(ValueError):
    """A query is not understood; the message says where and why."""


@dataclass(frozen=True, slots=True)
class SpanFilter:
    """The SQL condition about a row `s` of the table ``spans``, and the attributes that it speaks of."""

    sql: str
    attributes: tuple[Attribute, ...]


def compile_traceql(query: str, parameters: Parameters) -> SpanFilter:
    """Compile a query, its literals as `parameters`. Raises TraceQLError."""
    return _Parser(query, parameters).parse()


def read_go_duration_ns(text: str) -> int:
    """Read a duration as Go writes it, such as ``1h30m``. Raises ValueError."""
    if not _GO_DURATION.fullmatch(text):
        raise ValueError(f"`{text}` is no duration such as 250ms or 1h30m")
    parts = re.findall(rf"[\d.]+(?:{_UNITS})", text)
    return min(sum(read_duration_ns(part) for part in parts), TOO_MUCH - 1)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(slots=True)
class _Parser:
    query: str
    parameters: Parameters
    tokens: list[_Token] = field(init=False)
    place: int = 0
    comparisons: int = 0
    attributes: dict[Attribute, None] = field(default_factory=dict)

    def parse(self) -> SpanFilter:
        self.tokens = list(self._scan())
        self._expect("{", "a query begins with {")
        sql = "true" if self._next.text == "}" else self._parse_any(0)
        self._expect("}", "&&, || or } is expected")
        if self._next.kind != "end":
            self._refuse(self._next, "only one set of spans, { … }, is understood, and nothing after it")
        return SpanFilter(sql, tuple(self.attributes))

    def _scan(self) -> Iterator[_Token]:
        at = 0
        while at < len(self.query):
            match = _TOKEN.match(self.query, at)
            if match is None:
                self._refuse(_Token("", self.query[at], at), "is not understood")
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match.group(), at)
            at = match.end()
        yield _Token("end", "", at)

    @property
    def _next(self) -> _Token:
        return self.tokens[self.place]

    def _take(self) -> _Token:
        token = self._next
        self.place += token.kind != "end"
        return token

    def _expect(self, mark: str, message: str) -> None:
        if self._next.kind != "mark" or self._next.text != mark:
            self._refuse(self._next, message)
        self._take()

    def _refuse(self, token: _Token, message: str) -> NoReturn:
        before = self.query[: token.at]
        line, column = before.count("\n") + 1, token.at - (before.rfind("\n") + 1) + 1
        what = f"`{token.text}`" if token.text else "the end"
        raise TraceQLError(f"TraceQL, line {line}, column {column}: {what}: {message}")

    def _parse_any(self, depth: int) -> str:
        return self._parse_terms(
            "||", " OR ", lambda: self._parse_terms("&&", " AND ", lambda: self._parse_term(depth))
        )

    def _parse_terms(self, mark: str, joined: str, parse: Callable[[], str]) -> str:
        terms = [parse()]
        while self._next.text == mark:
            self._take()
            terms.append(parse())
        return f"({joined.join(terms)})"

    def _parse_term(self, depth: int) -> str:
        token = self._take()
        if token.text == "(" and token.kind == "mark":
            if depth == _DEEPEST:
                self._refuse(token, "too many parentheses")
            sql = self._parse_any(depth + 1)
            self._expect(")", "&&, || or ) is expected")
            return sql
        if token.text in ("true", "false"):
            return token.text
        found = self._read_field(token)
        operator = self._take()
        if operator.kind != "mark" or operator.text not in _OPERATORS:
            self._refuse(operator, f"one of {' '.join(_OPERATORS)} is expected")
        self.comparisons += 1
        if self.comparisons > _MOST_COMPARISONS:
            self._refuse(token, f"a query of more than {_MOST_COMPARISONS} comparisons is too long")
        return self._compare(found, operator, self._take())

    def _read_field(self, token: _Token) -> Intrinsic | Attribute:
        text = token.text
        if token.kind == "attribute":
            text = re.sub(r'"((?:[^"\\]|\\.)*)"', lambda quoted: self._unescape(quoted[1], token), text)
        found = read_field(text) if token.kind in ("attribute", "word") else None
        if found is None:
            fields = "resource.…, span.…, .… or one of " + ", ".join(INTRINSICS)
            self._refuse(token, f"is no field that can be looked for; {fields} can")
        return found

    def _compare(self, found: Intrinsic | Attribute, operator: _Token, value: _Token) -> str:
        if isinstance(found, Attribute):
            self.attributes[found] = None
            if value.kind == "duration":
                self._refuse(value, "an attribute is a text, a number, true, false or nil")
            right = self._read_value(operator, value)
            return compare_attribute(found, _OPERATORS[operator.text], right)
        if found.kind in _WORDS:
            words = _WORDS[found.kind]
            if value.text not in words:
                self._refuse(value, f"one of {', '.join(words)} is expected")
            self._check(operator, _EQUALITY)
            right = Value(self.parameters.add(words[value.text]), found.kind)
        else:
            right = self._read_value(operator, value)
            if right.kind != found.kind:
                self._refuse(value, "a text is expected" if found.kind == "text" else "a duration is expected")
        condition = comparison(_OPERATORS[operator.text], Value(found.sql, found.kind), right)
        return found.within.format(condition)

    def _read_value(self, operator: _Token, value: _Token) -> Value:
        add = self.parameters.add
        if value.kind == "text":
            self._check(operator, _TEXTUAL)
            text = value.text[1:-1] if value.text[0] == "`" else self._unescape(value.text[1:-1], value)
            if operator.text in ("=~", "!~"):
                text = self._anchor(text, value)
            return Value(add(text), "text")
        if value.kind == "duration":
            self._check(operator, _NUMERIC)
            return Value(add(self._read_duration(value)), "duration")
        if value.kind == "number":
            self._check(operator, _NUMERIC)
            number = float(value.text)
            if abs(number) >= TOO_MUCH:
                self._refuse(value, "is more than 64 bits hold")
            return Value(add(int(value.text) if value.text.lstrip("-").isdigit() else number), "number")
        if value.text in ("true", "false"):
            self._check(operator, _EQUALITY)
            return Value(add(value.text == "true"), "boolean")
        if value.text == "nil":
            self._check(operator, _EQUALITY)
            return Value("NULL", "nothing")
        return self._refuse(value, "a text in quotes, a number, a duration, true, false or nil is expected")

    def _check(self, operator: _Token, allowed: tuple[str, ...]) -> None:
        if operator.text not in allowed:
            self._refuse(operator, f"what follows is compared by {' '.join(allowed)}")

    def _read_duration(self, value: _Token) -> int:
        sign = -1 if value.text.startswith("-") else 1
        try:
            return sign * read_go_duration_ns(value.text.removeprefix("-"))
        except ValueError as error:
            return self._refuse(value, str(error))

    def _anchor(self, pattern: str, value: _Token) -> str:
        """Make a regular expression match the whole text, as TraceQL has it."""
        anchored = f"^(?:{pattern})$"
        try:
            pc.match_substring_regex(pa.array([""]), anchored)  # by RE2, as DuckDB does
        except pa.ArrowInvalid as error:
            self._refuse(value, f"is no regular expression: {str(error).rpartition(': ')[2]}")
        return anchored

    def _unescape(self, text: str, token: _Token) -> str:
        def read(found: re.Match[str]) -> str:
            digits = found[1] or found[2] or found[3]
            if digits and int(digits, 16) < 0x110000 and not 0xD800 <= int(digits, 16) < 0xE000:
                return chr(int(digits, 16))
            if found[4] not in _ESCAPES:
                self._refuse(token, f"`{found[0]}` is no escape")
            return _ESCAPES[found[4]]

        return _ESCAPE.sub(read, text)
