"""Lark's tree of expressions, and of what they select, to ours."""

from __future__ import annotations

from typing import Any

from lark import Token, Transformer, v_args
from lark.tree import Meta

from spanproof.query_lang import syntax as s
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.literals import Refused, read_number, read_text
from spanproof.query_lang.syntax import Source
from spanproof.query_lang.vocabulary import RESPONSE_PARTS


def place_of(part: Meta | Token) -> Source:
    """Return where a rule or a token stands in the text."""
    return Source(part.start_pos or 0, part.end_pos or 0)


def read_name(token: Token) -> s.Name:
    """Read a name, a part of which may be quoted."""
    text = str(token)
    if text.endswith('"'):
        prefix, quoted = text.split(".", 1) if text.count('"') == 2 else (text, "")
        text = f"{prefix}.{quoted[1:-1]}"
    return s.Name(text, place_of(token))


def read_string(token: Token) -> s.Text:
    """Read a string with its holes."""
    return read_text(str(token), place_of(token))


def read_word(token: Token) -> s.Name | s.Text | None:
    """Read a service: a name, a quoted name, or None for ``*``."""
    if token.type == "STAR":
        return None
    return read_string(token) if token.type == "STRING" else read_name(token)


@v_args(meta=True)
class ValueBuilder(Transformer[Token, Any]):
    """Builds expressions and selections, bottom up; a method for each rule of the grammar."""

    def any_of(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0] if len(items) == 1 else s.AnyOf(tuple(items), place_of(meta))

    def all_of(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0] if len(items) == 1 else s.AllOf(tuple(items), place_of(meta))

    def negated(self, meta: Meta, items: list[Any]) -> s.Not:
        return s.Not(items[0], place_of(meta))

    def compare(self, meta: Meta, items: list[Any]) -> s.Compare:
        return s.Compare(str(items[1]), items[0], items[2], place_of(meta))  # type: ignore[arg-type]  # the lexer's

    def membership(self, meta: Meta, items: list[Any]) -> s.OneOf:
        value, word, options = items
        listed = options if isinstance(options, tuple) else (options,)
        return s.OneOf(value, listed, str(word) != "in", place_of(meta))

    def listing(self, meta: Meta, items: list[Any]) -> tuple[s.Expression, ...]:
        return tuple(item for item in items if item is not None)

    def interval(self, meta: Meta, items: list[Any]) -> s.Range:
        low, high = (read_number(str(item), place_of(item)) for item in items)
        return s.Range(low, high, place_of(meta))

    def arithmetic(self, meta: Meta, items: list[Any]) -> s.Arithmetic:
        return s.Arithmetic(str(items[1]), items[0], items[2], place_of(meta))  # type: ignore[arg-type]  # the lexer's

    def negative(self, meta: Meta, items: list[Any]) -> s.Negative:
        return s.Negative(items[1], place_of(meta))

    def grouped(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0]  # type: ignore[no-any-return]  # an expression already

    def number(self, meta: Meta, items: list[Any]) -> s.Number:
        return read_number(str(items[0]), place_of(items[0]))

    def function(self, meta: Meta, items: list[Any]) -> s.Function:
        name, *arguments = items
        return s.Function(
            str(name),
            tuple(argument for argument in arguments if argument is not None),
            place_of(meta),
            place_of(name),
        )

    def call(self, meta: Meta, items: list[Any]) -> s.Call:
        caller, arrow, callee = items
        return s.Call(as_target(caller), str(arrow), as_target(callee), False, place_of(meta))  # type: ignore[arg-type]

    def attempt(self, meta: Meta, items: list[Any]) -> s.Call:
        _, caller, arrow, callee = items
        return s.Call(as_target(caller), str(arrow), as_target(callee), True, place_of(meta))  # type: ignore[arg-type]

    def index(self, meta: Meta, items: list[Any]) -> tuple[s.Expression, Token | None, Source]:
        return items[0], items[1], place_of(meta)

    def named(self, meta: Meta, items: list[Any]) -> s.Expression:
        token, operation, *indices = items
        name = read_name(token)
        if operation is None and _is_response(name.text.split(".")):
            return _response(name, indices, place_of(meta))
        if operation is None and name.text in ("event", "link") and indices:
            return s.Within("event" if name.text == "event" else "link", _condition(indices), place_of(meta))
        if operation is None and not indices:
            return name
        return _target("entry", name, operation, indices, place_of(meta))

    def quoted(self, meta: Meta, items: list[Any]) -> s.Expression:
        token, operation, *indices = items
        text = read_string(token)
        return text if operation is None and not indices else _target("entry", text, operation, indices, place_of(meta))

    def anything(self, meta: Meta, items: list[Any]) -> s.Target:
        _, operation, *indices = items
        return _target("entry", None, operation, indices, place_of(meta))

    def spans(self, meta: Meta, items: list[Any]) -> s.Target:
        _, service, operation, *indices = items
        return _target("any", read_word(service) if service else None, operation, indices, place_of(meta))


def _target(
    spans: str, service: s.Name | s.Text | None, operation: Token | None, indices: list[Any], at: Source
) -> s.Target:
    where = _condition(indices) if indices else None
    kind = "any" if spans == "any" else "entry"
    return s.Target(kind, service, read_string(operation) if operation else None, where, at)  # type: ignore[arg-type]


def _condition(indices: list[Any]) -> s.Expression:
    (condition, member, _), *more = indices
    if more or member:
        at = more[0][2] if more else place_of(member)
        raise Refused(Diagnostic("syntax", "a selection has one condition", at, "join conditions with `and`"))
    return condition  # type: ignore[no-any-return]  # an expression already


def _is_response(words: list[str]) -> bool:
    """Tell ``response.…`` and ``step.response.part…`` from attributes such as ``http.response.status_code``."""
    if words[0] == "response":
        return True
    return len(words) > 2 and words[0] != "http" and words[1] == "response" and words[2] in RESPONSE_PARTS


def _response(name: s.Name, indices: list[Any], at: Source) -> s.Response:
    """``NAME.response.part.key…[0].key``; the name before ``response`` is that of a ``when … as NAME``."""
    words = name.text.split(".")
    place = words.index("response")
    step = ".".join(words[:place]) or None
    part, keys = (words[place + 1], list[str | int](words[place + 2 :])) if len(words) > place + 1 else ("", [])
    for value, member, where in indices:
        if isinstance(value, s.Text):
            keys.append(value.plain)
        elif isinstance(value, s.Number) and not value.unit and value.value == int(value.value):
            keys.append(int(value.value))
        else:
            raise Refused(Diagnostic("syntax", "a key of a response is a string or a whole number", where))
        if member:
            keys.extend(str(member)[1:].split("."))
    return s.Response(step, part, tuple(keys), at)


def as_target(item: s.Expression) -> s.Target:
    """Take an expression for the service that it names. Raises Refused where it names none."""
    if isinstance(item, s.Target):
        return item
    if isinstance(item, s.Name | s.Text):
        return s.Target("entry", item, None, None, item.at)
    raise Refused(Diagnostic("not-a-service", "a service is expected here", item.at))


def read_selection(item: s.Expression) -> s.Selection:
    """Take an expression for the call or the service that it names. Raises Refused where it names none."""
    return item if isinstance(item, s.Call) else as_target(item)
