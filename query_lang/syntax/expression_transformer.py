"""Transformer of Lark's parse tree into nodes of expressions and selections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lark import Token, Transformer, v_args
from lark.tree import Meta
from msgspec.structs import replace

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.literals import DiagnosticError, read_number_literal, read_string_literal
from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.syntax.vocabulary import PARTS, RELATIVES, RESPONSE_PARTS


def locate_meta(part: Meta | Token) -> TextRange:
    """Return the text range of a rule or a token."""
    return TextRange(part.start_pos or 0, part.end_pos or 0)


def read_name(token: Token) -> s.Name:
    """Read a name. Its last part may be quoted."""
    prefix, quote, rest = str(token).partition('."')
    at = locate_meta(token)
    if not quote:
        return s.Name(prefix, at)
    literal_at = s.TextRange(at.start + len(prefix) + 1, at.end)
    return s.Name(f"{prefix}.{read_string_literal(quote[1:] + rest, literal_at).plain}", at)


def read_string(token: Token) -> s.Text:
    """Read a string with its ``{name}`` placeholders."""
    return read_string_literal(str(token), locate_meta(token))


def read_service(token: Token) -> s.Name | s.Text | None:
    """Read a service: a name, a quoted name, or None for ``*``."""
    if token.type == "STAR":
        return None
    return read_string(token) if token.type == "STRING" else read_name(token)


@v_args(meta=True)
class ExpressionTransformer(Transformer[Token, Any]):
    """Bottom-up builder of expressions and selections, with one method per rule of the grammar."""

    def any_of(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0] if len(items) == 1 else s.AnyOf(tuple(items), locate_meta(meta))

    def all_of(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0] if len(items) == 1 else s.AllOf(tuple(items), locate_meta(meta))

    def negated(self, meta: Meta, items: list[Any]) -> s.Not:
        return s.Not(items[0], locate_meta(meta))

    def compare(self, meta: Meta, items: list[Any]) -> s.Compare:
        return s.Compare(str(items[1]), items[0], items[2], locate_meta(meta))  # type: ignore[arg-type]  # the lexer's

    def membership(self, meta: Meta, items: list[Any]) -> s.OneOf:
        value, word, options = items
        listed = options if isinstance(options, tuple) else (options,)
        return s.OneOf(value, listed, str(word) != "in", locate_meta(meta))

    def listing(self, meta: Meta, items: list[Any]) -> tuple[s.Expression, ...]:
        return tuple(item for item in items if item is not None)

    def interval(self, meta: Meta, items: list[Any]) -> s.ValueRange:
        low, high = (read_number_literal(str(item), locate_meta(item)) for item in items)
        return s.ValueRange(low, high, locate_meta(meta))

    def arithmetic(self, meta: Meta, items: list[Any]) -> s.Arithmetic:
        return s.Arithmetic(str(items[1]), items[0], items[2], locate_meta(meta))  # type: ignore[arg-type]  # the lexer's

    def negative(self, meta: Meta, items: list[Any]) -> s.Negative:
        return s.Negative(items[1], locate_meta(meta))

    def grouped(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0]  # type: ignore[no-any-return]  # an expression already

    def number(self, meta: Meta, items: list[Any]) -> s.Number:
        return read_number_literal(str(items[0]), locate_meta(items[0]))

    def function(self, meta: Meta, items: list[Any]) -> s.Function:
        name, *arguments = items
        return s.Function(
            str(name),
            tuple(argument for argument in arguments if argument is not None),
            locate_meta(meta),
            locate_meta(name),
        )

    def parts(self, meta: Meta, items: list[Any]) -> s.Function:
        function, *indices = items
        keys = str(indices.pop(0))[1:].split(".") if isinstance(indices[0], Token) else []
        return replace(function, keys=(*keys, *_read_keys(indices, "JSON")), at=locate_meta(meta))  # type: ignore[no-any-return]

    def call(self, meta: Meta, items: list[Any]) -> s.CallSelection:
        caller, arrow, callee = items
        call_arrow: s.Arrow = str(arrow)  # type: ignore[assignment]  # the grammar knows no other
        return s.CallSelection(
            to_span_selection(caller), call_arrow, to_span_selection(callee), False, locate_meta(meta)
        )

    def attempt(self, meta: Meta, items: list[Any]) -> s.CallSelection:
        _, caller, arrow, callee = items
        call_arrow: s.Arrow = str(arrow)  # type: ignore[assignment]  # the grammar knows no other
        return s.CallSelection(
            to_span_selection(caller), call_arrow, to_span_selection(callee), True, locate_meta(meta)
        )

    def picked(self, meta: Meta, items: list[Any]) -> s.Selection:
        pick: s.Pick = str(items[0])  # type: ignore[assignment]  # the grammar knows no other
        selection = items[1] if isinstance(items[1], s.CallSelection) else to_span_selection(items[1])
        return replace(selection, pick=pick, at=locate_meta(meta))

    def index(self, meta: Meta, items: list[Any]) -> tuple[s.Expression, Token | None, TextRange]:
        return items[0], items[1], locate_meta(meta)

    def named(self, meta: Meta, items: list[Any]) -> s.Expression:
        token, operation, *indices = items
        name = read_name(token)
        if operation is None and _is_response(name.text.split(".")):
            prefix, quote, key = str(token).partition('."')
            if quote:
                problem = "a quoted key of a response belongs in brackets"
                raise DiagnosticError(Diagnostic("syntax", problem, name.at, f'write `{prefix}["{key}]`'))
            return _make_response(name, indices, locate_meta(meta))
        if operation is None and name.text in (*PARTS, *RELATIVES) and indices:
            what: s.Part | s.Relative = name.text  # type: ignore[assignment]  # checked in the line before
            return s.Within(what, _read_condition(indices), locate_meta(meta))
        if operation is None and not indices:
            return name
        return _make_span_selection("entry", name, operation, indices, locate_meta(meta))

    def quoted(self, meta: Meta, items: list[Any]) -> s.Expression:
        token, operation, *indices = items
        text = read_string(token)
        return (
            text
            if operation is None and not indices
            else _make_span_selection("entry", text, operation, indices, locate_meta(meta))
        )

    def anything(self, meta: Meta, items: list[Any]) -> s.SpanSelection:
        _, operation, *indices = items
        return _make_span_selection("entry", None, operation, indices, locate_meta(meta))

    def spans(self, meta: Meta, items: list[Any]) -> s.SpanSelection:
        _, service, operation, *indices = items
        return _make_span_selection(
            "any", read_service(service) if service else None, operation, indices, locate_meta(meta)
        )


def _make_span_selection(
    spans: str, service: s.Name | s.Text | None, operation: Token | None, indices: list[Any], at: TextRange
) -> s.SpanSelection:
    where = _read_condition(indices) if indices else None
    kind = "any" if spans == "any" else "entry"
    return s.SpanSelection(kind, service, read_string(operation) if operation else None, where, at)  # type: ignore[arg-type]


def _read_condition(indices: list[Any]) -> s.Expression:
    (condition, member, _), *more = indices
    if more or member:
        at = more[0][2] if more else locate_meta(member)
        raise DiagnosticError(Diagnostic("syntax", "a selection has one condition", at, "join conditions with `and`"))
    return condition  # type: ignore[no-any-return]  # an expression already


def _is_response(words: list[str]) -> bool:
    """Distinguish ``response.…`` and ``step.response.part…`` from attributes such as ``http.response.status_code``."""
    if words[0] == "response":
        return True
    return len(words) > 2 and words[0] != "http" and words[1] == "response" and words[2] in RESPONSE_PARTS


def _make_response(name: s.Name, indices: list[Any], at: TextRange) -> s.Response:
    """Read ``NAME.response.part.key…[0].key``. The name before ``response`` is the one in ``when … as NAME``."""
    words = name.text.split(".")
    index = words.index("response")
    step = ".".join(words[:index]) or None
    part, keys = (words[index + 1], list[str | int](words[index + 2 :])) if len(words) > index + 1 else ("", [])
    return s.Response(step, part, (*keys, *_read_keys(indices, "a response")), at)


def _read_keys(indices: list[Any], of: str) -> Iterator[str | int]:
    """Yield the keys in ``[0].key["other"]``."""
    for value, member, key_at in indices:
        if isinstance(value, s.Text):
            yield value.plain
        elif isinstance(value, s.Number) and not value.unit and value.value == int(value.value):
            yield int(value.value)
        else:
            raise DiagnosticError(Diagnostic("syntax", f"a key of {of} is a string or a whole number", key_at))
        if member:
            yield from str(member)[1:].split(".")


def to_span_selection(item: s.Expression) -> s.SpanSelection:
    """Return the service that an expression names. Raises DiagnosticError if it names none."""
    if isinstance(item, s.SpanSelection):
        return item
    if isinstance(item, s.Name | s.Text):
        return s.SpanSelection("entry", item, None, None, item.at)
    raise DiagnosticError(Diagnostic("not-a-service", "a service is expected here", item.at))


def read_selection(item: s.Expression) -> s.Selection:
    """Return the call or the service that an expression names. Raises DiagnosticError if it names none."""
    return item if isinstance(item, s.CallSelection) else to_span_selection(item)
