"""TraceQL queries for one set of spans, as SQL: ``{ resource.service.name = "shop" && duration > 100ms }``.

Other parts of TraceQL (pipelines, structural operators, aggregates, events) are rejected with their position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.api.tempo.traceql_fields import (
    INTRINSICS,
    TraceqlAttribute,
    TraceqlIntrinsic,
    compile_attribute_comparison,
    read_field,
)
from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS, STATUS_CODES
from spanproof.query_lang.sql.conditions import SqlValue, compile_operator
from spanproof.query_lang.sql.row_aliases import SqlParameters
from spanproof.query_lang.syntax.literals import INT64_LIMIT, UNITS_NS, read_duration_ns

_UNIT_PATTERN = "|".join(sorted(UNITS_NS.keys() - {"d"}, key=len, reverse=True))
_GO_DURATION = re.compile(rf"(?:\d+(?:\.\d+)?(?:{_UNIT_PATTERN}))+", re.ASCII)
_TOKEN_PATTERN = re.compile(
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
_EQUALITY_OPERATORS: Final = ("=", "!=")
_TEXT_OPERATORS: Final = ("=", "!=", "=~", "!~")
_NUMBER_OPERATORS: Final = ("=", "!=", ">", ">=", "<", "<=")
_KEYWORD_VALUES: Final = {"status": STATUS_CODES, "kind": SPAN_KINDS}

# limits of a query, so that the SQL does not exceed the nesting depth of the database
_MAX_COMPARISONS, _MAX_DEPTH = 100, 20


class TraceQLError(ValueError):
    """A query is invalid or not supported; the message gives the position and the reason."""


class SpanFilter(Struct, frozen=True):
    """The SQL condition on a row `s` of the table ``spans``, and the attributes in it."""

    sql: str
    attributes: tuple[TraceqlAttribute, ...]


def compile_traceql(query: str, parameters: SqlParameters) -> SpanFilter:
    """Compile a query, with its literals as `parameters`. Raises TraceQLError."""
    return _TraceqlParser(query, parameters).parse()


def read_go_duration_ns(text: str) -> int:
    """Read a duration in Go's notation, such as ``1h30m``. Raises ValueError."""
    if not _GO_DURATION.fullmatch(text):
        raise ValueError(f"`{text}` is not a duration such as 250ms or 1h30m")
    parts = re.findall(rf"[\d.]+(?:{_UNIT_PATTERN})", text)
    return min(sum(read_duration_ns(part) for part in parts), INT64_LIMIT - 1)


class _TraceqlToken(Struct, frozen=True):
    kind: str
    text: str
    at: int


class _TraceqlParser:
    def __init__(self, query: str, parameters: SqlParameters) -> None:
        self.query = query
        self.parameters = parameters
        self.tokens = list(self._scan())
        self.position = 0
        self.comparison_count = 0
        self.attributes: dict[TraceqlAttribute, None] = {}

    def parse(self) -> SpanFilter:
        self._expect("{", "a query begins with {")
        sql = "true" if self._next_token.text == "}" else self._parse_disjunction(0)
        self._expect("}", "&&, || or } is expected")
        if self._next_token.kind != "end":
            self._raise_error(self._next_token, "only one set of spans, { … }, is supported, with nothing after it")
        return SpanFilter(sql, tuple(self.attributes))

    def _scan(self) -> Iterator[_TraceqlToken]:
        at = 0
        while at < len(self.query):
            match = _TOKEN_PATTERN.match(self.query, at)
            if match is None:
                self._raise_error(_TraceqlToken("", self.query[at], at), "is not understood")
            if match.lastgroup != "space":
                yield _TraceqlToken(str(match.lastgroup), match.group(), at)
            at = match.end()
        yield _TraceqlToken("end", "", at)

    @property
    def _next_token(self) -> _TraceqlToken:
        return self.tokens[self.position]

    def _take_token(self) -> _TraceqlToken:
        token = self._next_token
        self.position += token.kind != "end"
        return token

    def _expect(self, mark: str, message: str) -> None:
        if self._next_token.kind != "mark" or self._next_token.text != mark:
            self._raise_error(self._next_token, message)
        self._take_token()

    def _raise_error(self, token: _TraceqlToken, message: str) -> NoReturn:
        before = self.query[: token.at]
        line, column = before.count("\n") + 1, token.at - (before.rfind("\n") + 1) + 1
        what = f"`{token.text}`" if token.text else "the end"
        raise TraceQLError(f"TraceQL, line {line}, column {column}: {what}: {message}")

    def _parse_disjunction(self, depth: int) -> str:
        return self._parse_terms(
            "||", " OR ", lambda: self._parse_terms("&&", " AND ", lambda: self._parse_term(depth))
        )

    def _parse_terms(self, mark: str, sql_operator: str, parse: Callable[[], str]) -> str:
        terms = [parse()]
        while self._next_token.text == mark:
            self._take_token()
            terms.append(parse())
        return f"({sql_operator.join(terms)})"

    def _parse_term(self, depth: int) -> str:
        token = self._take_token()
        if token.text == "(" and token.kind == "mark":
            if depth == _MAX_DEPTH:
                self._raise_error(token, "too many parentheses")
            sql = self._parse_disjunction(depth + 1)
            self._expect(")", "&&, || or ) is expected")
            return sql
        if token.text in ("true", "false"):
            return token.text
        field = self._read_field(token)
        operator = self._take_token()
        if operator.kind != "mark" or operator.text not in _OPERATORS:
            self._raise_error(operator, f"one of {' '.join(_OPERATORS)} is expected")
        self.comparison_count += 1
        if self.comparison_count > _MAX_COMPARISONS:
            self._raise_error(token, f"a query of more than {_MAX_COMPARISONS} comparisons is too long")
        return self._compile_comparison(field, operator, self._take_token())

    def _read_field(self, token: _TraceqlToken) -> TraceqlIntrinsic | TraceqlAttribute:
        text = token.text
        if token.kind == "attribute":
            text = re.sub(r'"((?:[^"\\]|\\.)*)"', lambda match: self._unescape(match[1], token), text)
        named_field = read_field(text) if token.kind in ("attribute", "word") else None
        if named_field is None:
            fields = "resource.…, span.…, .… or one of " + ", ".join(INTRINSICS)
            self._raise_error(token, f"is not a searchable field; write {fields}")
        return named_field

    def _compile_comparison(
        self, field: TraceqlIntrinsic | TraceqlAttribute, operator: _TraceqlToken, value: _TraceqlToken
    ) -> str:
        if isinstance(field, TraceqlAttribute):
            self.attributes[field] = None
            if value.kind == "duration":
                self._raise_error(value, "an attribute is a text, a number, true, false or nil")
            right = self._read_value(operator, value)
            return compile_attribute_comparison(field, _OPERATORS[operator.text], right)
        if field.kind in _KEYWORD_VALUES:
            words = _KEYWORD_VALUES[field.kind]
            if value.text not in words:
                self._raise_error(value, f"one of {', '.join(words)} is expected")
            self._check_operator(operator, _EQUALITY_OPERATORS)
            right = SqlValue(self.parameters.add(words[value.text]), field.kind)
        else:
            right = self._read_value(operator, value)
            if right.kind != field.kind:
                self._raise_error(value, "a text is expected" if field.kind == "text" else "a duration is expected")
        condition = compile_operator(_OPERATORS[operator.text], SqlValue(field.sql, field.kind), right)
        return field.condition_template.format(condition)

    def _read_value(self, operator: _TraceqlToken, value: _TraceqlToken) -> SqlValue:
        add = self.parameters.add
        if value.kind == "text":
            self._check_operator(operator, _TEXT_OPERATORS)
            text = value.text[1:-1] if value.text[0] == "`" else self._unescape(value.text[1:-1], value)
            if operator.text in ("=~", "!~"):
                text = self._anchor_pattern(text, value)
            return SqlValue(add(text), "text")
        if value.kind == "duration":
            self._check_operator(operator, _NUMBER_OPERATORS)
            return SqlValue(add(self._read_duration(value)), "duration")
        if value.kind == "number":
            self._check_operator(operator, _NUMBER_OPERATORS)
            number = float(value.text)
            if abs(number) >= INT64_LIMIT:
                self._raise_error(value, "does not fit into 64 bits")
            return SqlValue(add(int(value.text) if value.text.lstrip("-").isdigit() else number), "number")
        if value.text in ("true", "false"):
            self._check_operator(operator, _EQUALITY_OPERATORS)
            return SqlValue(add(value.text == "true"), "boolean")
        if value.text == "nil":
            self._check_operator(operator, _EQUALITY_OPERATORS)
            return SqlValue("NULL", "nothing")
        return self._raise_error(value, "a text in quotes, a number, a duration, true, false or nil is expected")

    def _check_operator(self, operator: _TraceqlToken, allowed: tuple[str, ...]) -> None:
        if operator.text not in allowed:
            self._raise_error(operator, f"the value that follows is compared by {' '.join(allowed)}")

    def _read_duration(self, value: _TraceqlToken) -> int:
        sign = -1 if value.text.startswith("-") else 1
        try:
            return sign * read_go_duration_ns(value.text.removeprefix("-"))
        except ValueError as error:
            return self._raise_error(value, str(error))

    def _anchor_pattern(self, pattern: str, value: _TraceqlToken) -> str:
        """Return a regular expression that matches the whole text, as in TraceQL."""
        anchored = f"^(?:{pattern})$"
        try:
            pc.match_substring_regex(pa.array([""]), anchored)  # uses RE2, like DuckDB
        except pa.ArrowInvalid as error:
            self._raise_error(value, f"is not a regular expression: {str(error).rpartition(': ')[2]}")
        return anchored

    def _unescape(self, text: str, token: _TraceqlToken) -> str:
        def unescape(match: re.Match[str]) -> str:
            digits = match[1] or match[2] or match[3]
            if digits and int(digits, 16) < 0x110000 and not 0xD800 <= int(digits, 16) < 0xE000:
                return chr(int(digits, 16))
            if match[4] not in _ESCAPES:
                self._raise_error(token, f"`{match[0]}` is not an escape sequence")
            return _ESCAPES[match[4]]

        return _ESCAPE.sub(unescape, text)
