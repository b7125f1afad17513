"""Lark's tree to ours."""

from __future__ import annotations

from typing import Any

from lark import Token, Transformer, v_args
from lark.tree import Meta

from spanproof.query_lang import syntax as s
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.literals import Refused, read_number, read_text
from spanproof.query_lang.syntax import Source
from spanproof.query_lang.vocabulary import RESPONSE_PARTS


def _at(meta: Meta) -> Source:
    return Source(meta.start_pos, meta.end_pos)


def _of(token: Token) -> Source:
    return Source(token.start_pos or 0, token.end_pos or 0)


def _name(token: Token) -> s.Name:
    text = str(token)
    if text.endswith('"'):
        prefix, quoted = text.split(".", 1) if text.count('"') == 2 else (text, "")
        text = f"{prefix}.{quoted[1:-1]}"
    return s.Name(text, _of(token))


def _text(token: Token) -> s.Text:
    return read_text(str(token), _of(token))


def _word(token: Token) -> s.Name | s.Text | None:
    """A service: a name, a quoted name, or None for ``*``."""
    if token.type == "STAR":
        return None
    return _text(token) if token.type == "STRING" else _name(token)


@v_args(meta=True)
class TreeBuilder(Transformer[Token, Any]):
    """Builds :mod:`spanproof.query_lang.syntax` nodes, bottom up; a method for each rule of the grammar."""

    # ## Items and statements

    def start(self, meta: Meta, items: list[Any]) -> tuple[s.Item, ...]:
        return tuple(item for item in items if item is not None)

    def use(self, meta: Meta, items: list[Any]) -> s.Use:
        return s.Use(_text(items[0]), _at(meta))

    def let(self, meta: Meta, items: list[Any]) -> s.Let:
        return s.Let(_name(items[0]), items[1], _at(meta))

    def define(self, meta: Meta, items: list[Any]) -> s.Define:
        name, *parameters, block = items
        return s.Define(str(name), tuple(_name(token) for token in parameters if token), block, _at(meta))

    def proof(self, meta: Meta, items: list[Any]) -> s.Proof:
        name, tags, block = items
        plain = _text(name).plain
        if not plain.strip():
            raise Refused(Diagnostic("incomplete", "a proof has a name", _of(name)))
        return s.Proof(plain, tags or (), block, _at(meta))

    def tags(self, meta: Meta, items: list[Any]) -> tuple[str, ...]:
        return tuple(str(tag) for tag in items)

    def hook(self, meta: Meta, items: list[Any]) -> s.Hook:
        return s.Hook("before" if items[0] == "before" else "after", items[1], _at(meta))

    def block(self, meta: Meta, items: list[Any]) -> tuple[s.Statement, ...]:
        return tuple(item for item in items if item is not None)

    def when(self, meta: Meta, items: list[Any]) -> s.When:
        (kind, targets), options, name = items
        return s.When(kind, targets, options or (), _name(name) if name else None, _at(meta))

    def http(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return str(items[0]), (_text(items[1]),)

    def grpc(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return "grpc", (_text(items[0]), _text(items[1]))

    def publish(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Name | s.Text, ...]]:
        return "publish", (_name(items[0]), _text(items[1]))

    def command(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return "run", (_text(items[0]),)

    def stored(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return "trace", (_text(items[0]),)

    def options(self, meta: Meta, items: list[Any]) -> tuple[s.Option, ...]:
        return tuple(item for item in items if item is not None)

    def header(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("header", _text(items[0]), items[1], None, _at(meta))

    def query(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("query", _text(items[0]), items[1], None, _at(meta))

    def file(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("file", _text(items[0]), items[1], None, _at(meta))

    def json_body(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("json", None, items[0], None, _at(meta))

    def text_body(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("body", None, items[0], None, _at(meta))

    def form(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("form", None, items[0], None, _at(meta))

    def request_timeout(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("timeout", None, items[0], None, _at(meta))

    def repeat(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("repeat", None, items[0], items[1], _at(meta))

    def broker(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("broker", None, items[0], None, _at(meta))

    def exchange(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("exchange", None, items[0], None, _at(meta))

    def message_key(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("key", None, items[0], None, _at(meta))

    def descriptors(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("descriptors", None, _text(items[0]), None, _at(meta))

    def tls(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("tls", None, _text(items[0]) if items[0] else None, None, _at(meta))

    def json_object(self, meta: Meta, items: list[Any]) -> s.JsonObject:
        return s.JsonObject(tuple(item for item in items if item is not None), _at(meta))

    def json_pair(self, meta: Meta, items: list[Any]) -> tuple[s.Text, s.Json]:
        return _text(items[0]), items[1]

    def json_array(self, meta: Meta, items: list[Any]) -> s.JsonArray:
        return s.JsonArray(tuple(item for item in items if item is not None), _at(meta))

    def json_value(self, meta: Meta, items: list[Any]) -> s.Json:
        (token,) = items
        if token.type == "STRING":
            return _text(token)
        return read_number(str(token), _of(token)) if token.type == "NUMBER" else _name(token)

    def json_negative(self, meta: Meta, items: list[Any]) -> s.Json:
        number = items[-1]
        return s.Negative(read_number(str(number), _of(number)), _at(meta))

    def settle(self, meta: Meta, items: list[Any]) -> s.Settle:
        return s.Settle(items[0], items[1], _at(meta))

    def given(self, meta: Meta, items: list[Any]) -> s.Given:
        return s.Given(_selection(items[0]) if items[0] else None, items[1], items[2], False, _at(meta))

    def baseline(self, meta: Meta, items: list[Any]) -> s.Given:
        return s.Given(_selection(items[0]), items[1], items[2], True, _at(meta))

    def question(self, meta: Meta, items: list[Any]) -> s.Question:
        value, by, start, window, where, step = items
        given = s.Given(_selection(start) if start else None, window, where, False, _at(meta))
        return s.Question(value, by, given, step, _at(meta))

    def last(self, meta: Meta, items: list[Any]) -> s.Window:
        return s.Window("last", (items[0],), _at(meta))

    def since(self, meta: Meta, items: list[Any]) -> s.Window:
        return s.Window("since", (items[0],), _at(meta))

    def between(self, meta: Meta, items: list[Any]) -> s.Window:
        return s.Window("between", tuple(items), _at(meta))

    def time(self, meta: Meta, items: list[Any]) -> s.Expression:
        return _text(items[0]) if items[0].type == "STRING" else _name(items[0])

    def apply(self, meta: Meta, items: list[Any]) -> s.Apply:
        return s.Apply(str(items[0]), tuple(item for item in items[1:] if item is not None), _at(meta))

    # ## Claims

    def expectation(self, meta: Meta, items: list[Any]) -> s.Expectation:
        claim, share, by, confidence, label = items
        return s.Expectation(claim, share, by, confidence, _text(label) if label else None, _at(meta))

    def share(self, meta: Meta, items: list[Any]) -> s.Share:
        return s.Share(str(items[1]), items[2], _at(meta))  # type: ignore[arg-type]  # the lexer's comparators

    def by(self, meta: Meta, items: list[Any]) -> s.Name:
        return _name(items[0])

    def name(self, meta: Meta, items: list[Any]) -> s.Name | s.Text | None:
        return _word(items[0])

    def confidence(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0]  # type: ignore[no-any-return]  # an expression already

    def every(self, meta: Meta, items: list[Any]) -> s.Every:
        return s.Every(_selection(items[0]), items[1], _at(meta))

    def some(self, meta: Meta, items: list[Any]) -> s.Some:
        return s.Some(_selection(items[0]), items[1], _at(meta))

    def no(self, meta: Meta, items: list[Any]) -> s.No:
        return s.No(_selection(items[0]), items[1], _at(meta))

    def path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._bare(items[0]), "some", _at(meta))

    def no_path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._bare(items[0]), "no", _at(meta))

    def only_path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._bare(items[0]), "only", _at(meta))

    def before(self, meta: Meta, items: list[Any]) -> s.Before:
        return s.Before(_selection(items[0]), _selection(items[1]), _at(meta))

    def retry(self, meta: Meta, items: list[Any]) -> s.Retry:
        return s.Retry(_selection(items[0]), items[1], _at(meta))

    def no_retry(self, meta: Meta, items: list[Any]) -> s.NoRetry:
        return s.NoRetry(_selection(items[0]), _at(meta))

    def fallback(self, meta: Meta, items: list[Any]) -> s.Fallback:
        to = _selection(items[1])
        if isinstance(to, s.Call):
            raise Refused(
                Diagnostic("not-a-service", "a fallback leads to a service or a `span`, not to a call", to.at)
            )
        return s.Fallback(_selection(items[0]), to, _at(meta))

    def circuit(self, meta: Meta, items: list[Any]) -> s.Circuit:
        return s.Circuit(_selection(items[0]), items[1], _at(meta))

    def timeout(self, meta: Meta, items: list[Any]) -> s.Timeout:
        return s.Timeout(_selection(items[0]), items[1], _at(meta))

    def budget(self, meta: Meta, items: list[Any]) -> s.Budget:
        return s.Budget(items[0], items[1] or (), _at(meta))

    def budget_parts(self, meta: Meta, items: list[Any]) -> tuple[Any, ...]:
        return tuple(item for item in items if item is not None)

    def budget_part(self, meta: Meta, items: list[Any]) -> tuple[Any, s.Expression]:
        return items[0], items[1]

    def not_worse(self, meta: Meta, items: list[Any]) -> s.NotWorse:
        return s.NotWorse(items[0], items[2], items[3], _at(meta))

    def schema(self, meta: Meta, items: list[Any]) -> s.Contract:
        return s.Contract("schema", _text(items[0]), _at(meta))

    def openapi(self, meta: Meta, items: list[Any]) -> s.Contract:
        return s.Contract("openapi", _text(items[0]), _at(meta))

    def comparison(self, meta: Meta, items: list[Any]) -> s.Comparison:
        return s.Comparison(items[0], _at(meta))

    def retry_clauses(self, meta: Meta, items: list[Any]) -> tuple[s.Clause, ...]:
        return tuple(item for item in items if item is not None)

    circuit_clauses = retry_clauses

    def limit_clause(self, meta: Meta, items: list[Any]) -> s.Limit:
        return s.Limit(str(items[0]), str(items[1]), items[2], _at(meta))  # type: ignore[arg-type]  # the lexer's

    def grows_clause(self, meta: Meta, items: list[Any]) -> s.Flag:
        return s.Flag(f"{items[0]} {items[1]}", _at(meta))

    def flag_clause(self, meta: Meta, items: list[Any]) -> s.Flag:
        return s.Flag(str(items[0]), _at(meta))

    def cause_clause(self, meta: Meta, items: list[Any]) -> s.Cause:
        return s.Cause(items[0], _at(meta))

    def opens_clause(self, meta: Meta, items: list[Any]) -> s.Opens:
        if items[1] != "failures":
            raise Refused(
                Diagnostic("unknown-word", f"`{items[1]}` is not known here", _of(items[1]), "did you mean `failures`?")
            )
        return s.Opens(items[0], _at(meta))

    # ## Paths

    def hop(self, meta: Meta, items: list[Any]) -> s.Leg:
        step, arrow, rest = items
        branches = rest if isinstance(rest, tuple) else (self._bare(rest),)
        return s.Leg(step, str(arrow), branches, _at(meta))  # type: ignore[arg-type]  # the lexer's arrows

    def branches(self, meta: Meta, items: list[Any]) -> tuple[s.Leg, ...]:
        return tuple(self._bare(item) for item in items)

    def step(self, meta: Meta, items: list[Any]) -> s.Step:
        targets = tuple(_as_target(item) for item in items)
        for target in targets:
            if target.spans == "any":
                raise Refused(Diagnostic("not-a-service", "a step of a path is a service, not any `span`", target.at))
        return s.Step(targets, _at(meta))

    @staticmethod
    def _bare(item: s.Leg | s.Step) -> s.Leg:
        return item if isinstance(item, s.Leg) else s.Leg(item, None, (), item.at)

    # ## Expressions

    def any_of(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0] if len(items) == 1 else s.AnyOf(tuple(items), _at(meta))

    def all_of(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0] if len(items) == 1 else s.AllOf(tuple(items), _at(meta))

    def negated(self, meta: Meta, items: list[Any]) -> s.Not:
        return s.Not(items[0], _at(meta))

    def compare(self, meta: Meta, items: list[Any]) -> s.Compare:
        return s.Compare(str(items[1]), items[0], items[2], _at(meta))  # type: ignore[arg-type]  # the lexer's

    def membership(self, meta: Meta, items: list[Any]) -> s.OneOf:
        value, word, options = items
        listed = options if isinstance(options, tuple) else (options,)
        return s.OneOf(value, listed, str(word) != "in", _at(meta))

    def listing(self, meta: Meta, items: list[Any]) -> tuple[s.Expression, ...]:
        return tuple(item for item in items if item is not None)

    def interval(self, meta: Meta, items: list[Any]) -> s.Range:
        low, high = (read_number(str(item), _of(item)) for item in items)
        return s.Range(low, high, _at(meta))

    def arithmetic(self, meta: Meta, items: list[Any]) -> s.Arithmetic:
        return s.Arithmetic(str(items[1]), items[0], items[2], _at(meta))  # type: ignore[arg-type]  # the lexer's

    def negative(self, meta: Meta, items: list[Any]) -> s.Negative:
        return s.Negative(items[1], _at(meta))

    def grouped(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0]  # type: ignore[no-any-return]  # an expression already

    def number(self, meta: Meta, items: list[Any]) -> s.Number:
        return read_number(str(items[0]), _of(items[0]))

    def function(self, meta: Meta, items: list[Any]) -> s.Function:
        name, *arguments = items
        return s.Function(
            str(name), tuple(argument for argument in arguments if argument is not None), _at(meta), _of(name)
        )

    def call(self, meta: Meta, items: list[Any]) -> s.Call:
        caller, arrow, callee = items
        return s.Call(_as_target(caller), str(arrow), _as_target(callee), False, _at(meta))  # type: ignore[arg-type]

    def attempt(self, meta: Meta, items: list[Any]) -> s.Call:
        _, caller, arrow, callee = items
        return s.Call(_as_target(caller), str(arrow), _as_target(callee), True, _at(meta))  # type: ignore[arg-type]

    def index(self, meta: Meta, items: list[Any]) -> tuple[s.Expression, Token | None, Source]:
        return items[0], items[1], _at(meta)

    def named(self, meta: Meta, items: list[Any]) -> s.Expression:
        token, operation, *indices = items
        name = _name(token)
        if operation is None and _is_response(name.text.split(".")):
            return _response(name, indices, _at(meta))
        if operation is None and name.text in ("event", "link") and indices:
            return s.Within("event" if name.text == "event" else "link", _condition(indices), _at(meta))
        if operation is None and not indices:
            return name
        return _target("entry", name, operation, indices, _at(meta))

    def quoted(self, meta: Meta, items: list[Any]) -> s.Expression:
        token, operation, *indices = items
        text = _text(token)
        return text if operation is None and not indices else _target("entry", text, operation, indices, _at(meta))

    def anything(self, meta: Meta, items: list[Any]) -> s.Target:
        _, operation, *indices = items
        return _target("entry", None, operation, indices, _at(meta))

    def spans(self, meta: Meta, items: list[Any]) -> s.Target:
        _, service, operation, *indices = items
        return _target("any", _word(service) if service else None, operation, indices, _at(meta))


def _target(
    spans: str, service: s.Name | s.Text | None, operation: Token | None, indices: list[Any], at: Source
) -> s.Target:
    where = _condition(indices) if indices else None
    kind = "any" if spans == "any" else "entry"
    return s.Target(kind, service, _text(operation) if operation else None, where, at)  # type: ignore[arg-type]


def _condition(indices: list[Any]) -> s.Expression:
    (condition, member, _), *more = indices
    if more or member:
        at = more[0][2] if more else _of(member)
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


def _as_target(item: s.Expression) -> s.Target:
    if isinstance(item, s.Target):
        return item
    if isinstance(item, s.Name | s.Text):
        return s.Target("entry", item, None, None, item.at)
    raise Refused(Diagnostic("not-a-service", "a service is expected here", item.at))


def _selection(item: s.Expression) -> s.Selection:
    return item if isinstance(item, s.Call) else _as_target(item)
