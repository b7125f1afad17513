"""Lark's tree of a file to ours: items, statements, claims and paths; expressions are in `tree_values`."""

from __future__ import annotations

from typing import Any

from lark import v_args
from lark.tree import Meta

from spanproof.query_lang import syntax as s
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.literals import Refused, read_number
from spanproof.query_lang.tree_values import (
    ValueBuilder,
    as_target,
    place_of,
    read_name,
    read_selection,
    read_string,
    read_word,
)


@v_args(meta=True)
class TreeBuilder(ValueBuilder):
    """Builds :mod:`spanproof.query_lang.syntax` nodes, bottom up; a method for each rule of the grammar."""

    # ## Items and statements

    def start(self, meta: Meta, items: list[Any]) -> tuple[s.Item, ...]:
        return tuple(item for item in items if item is not None)

    def use(self, meta: Meta, items: list[Any]) -> s.Use:
        return s.Use(read_string(items[0]), place_of(meta))

    def let(self, meta: Meta, items: list[Any]) -> s.Let:
        return s.Let(read_name(items[0]), items[1], place_of(meta))

    def define(self, meta: Meta, items: list[Any]) -> s.Define:
        name, *parameters, block = items
        return s.Define(str(name), tuple(read_name(token) for token in parameters if token), block, place_of(meta))

    def proof(self, meta: Meta, items: list[Any]) -> s.Proof:
        name, tags, block = items
        plain = read_string(name).plain
        if not plain.strip():
            raise Refused(Diagnostic("incomplete", "a proof has a name", place_of(name)))
        return s.Proof(plain, tags or (), block, place_of(meta))

    def tags(self, meta: Meta, items: list[Any]) -> tuple[str, ...]:
        return tuple(str(tag) for tag in items)

    def hook(self, meta: Meta, items: list[Any]) -> s.Hook:
        return s.Hook("before" if items[0] == "before" else "after", items[1], place_of(meta))

    def block(self, meta: Meta, items: list[Any]) -> tuple[s.Statement, ...]:
        return tuple(item for item in items if item is not None)

    def when(self, meta: Meta, items: list[Any]) -> s.When:
        (kind, targets), options, name = items
        return s.When(kind, targets, options or (), read_name(name) if name else None, place_of(meta))

    def http(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return str(items[0]), (read_string(items[1]),)

    def grpc(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return "grpc", (read_string(items[0]), read_string(items[1]))

    def publish(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Name | s.Text, ...]]:
        return "publish", (read_name(items[0]), read_string(items[1]))

    def command(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return "run", (read_string(items[0]),)

    def stored(self, meta: Meta, items: list[Any]) -> tuple[str, tuple[s.Text, ...]]:
        return "trace", (read_string(items[0]),)

    def options(self, meta: Meta, items: list[Any]) -> tuple[s.Option, ...]:
        return tuple(item for item in items if item is not None)

    def header(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("header", read_string(items[0]), items[1], None, place_of(meta))

    def query(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("query", read_string(items[0]), items[1], None, place_of(meta))

    def file(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("file", read_string(items[0]), items[1], None, place_of(meta))

    def json_body(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("json", None, items[0], None, place_of(meta))

    def text_body(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("body", None, items[0], None, place_of(meta))

    def form(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("form", None, items[0], None, place_of(meta))

    def request_timeout(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("timeout", None, items[0], None, place_of(meta))

    def repeat(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("repeat", None, items[0], items[1], place_of(meta))

    def broker(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("broker", None, items[0], None, place_of(meta))

    def exchange(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("exchange", None, items[0], None, place_of(meta))

    def message_key(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("key", None, items[0], None, place_of(meta))

    def descriptors(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("descriptors", None, read_string(items[0]), None, place_of(meta))

    def tls(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("tls", None, read_string(items[0]) if items[0] else None, None, place_of(meta))

    def json_object(self, meta: Meta, items: list[Any]) -> s.JsonObject:
        return s.JsonObject(tuple(item for item in items if item is not None), place_of(meta))

    def json_pair(self, meta: Meta, items: list[Any]) -> tuple[s.Text, s.Json]:
        return read_string(items[0]), items[1]

    def json_array(self, meta: Meta, items: list[Any]) -> s.JsonArray:
        return s.JsonArray(tuple(item for item in items if item is not None), place_of(meta))

    def json_value(self, meta: Meta, items: list[Any]) -> s.Json:
        (token,) = items
        if token.type == "STRING":
            return read_string(token)
        return read_number(str(token), place_of(token)) if token.type == "NUMBER" else read_name(token)

    def json_negative(self, meta: Meta, items: list[Any]) -> s.Json:
        number = items[-1]
        return s.Negative(read_number(str(number), place_of(number)), place_of(meta))

    def settle(self, meta: Meta, items: list[Any]) -> s.Settle:
        return s.Settle(items[0], items[1], place_of(meta))

    def given(self, meta: Meta, items: list[Any]) -> s.Given:
        return s.Given(read_selection(items[0]) if items[0] else None, items[1], items[2], False, place_of(meta))

    def baseline(self, meta: Meta, items: list[Any]) -> s.Given:
        return s.Given(read_selection(items[0]), items[1], items[2], True, place_of(meta))

    def question(self, meta: Meta, items: list[Any]) -> s.Question:
        value, by, start, window, where, step = items
        given = s.Given(read_selection(start) if start else None, window, where, False, place_of(meta))
        return s.Question(value, by, given, step, place_of(meta))

    def last(self, meta: Meta, items: list[Any]) -> s.Window:
        return s.Window("last", (items[0],), place_of(meta))

    def since(self, meta: Meta, items: list[Any]) -> s.Window:
        return s.Window("since", (items[0],), place_of(meta))

    def between(self, meta: Meta, items: list[Any]) -> s.Window:
        return s.Window("between", tuple(items), place_of(meta))

    def time(self, meta: Meta, items: list[Any]) -> s.Expression:
        return read_string(items[0]) if items[0].type == "STRING" else read_name(items[0])

    def apply(self, meta: Meta, items: list[Any]) -> s.Apply:
        return s.Apply(str(items[0]), tuple(item for item in items[1:] if item is not None), place_of(meta))

    # ## Claims

    def expectation(self, meta: Meta, items: list[Any]) -> s.Expectation:
        claim, share, by, confidence, label = items
        return s.Expectation(claim, share, by, confidence, read_string(label) if label else None, place_of(meta))

    def share(self, meta: Meta, items: list[Any]) -> s.Share:
        return s.Share(str(items[1]), items[2], place_of(meta))  # type: ignore[arg-type]  # the lexer's comparators

    def by(self, meta: Meta, items: list[Any]) -> s.Name:
        return read_name(items[0])

    def name(self, meta: Meta, items: list[Any]) -> s.Name | s.Text | None:
        return read_word(items[0])

    def confidence(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0]  # type: ignore[no-any-return]  # an expression already

    def every(self, meta: Meta, items: list[Any]) -> s.Every:
        return s.Every(read_selection(items[0]), items[1], place_of(meta))

    def some(self, meta: Meta, items: list[Any]) -> s.Some:
        return s.Some(read_selection(items[0]), items[1], place_of(meta))

    def no(self, meta: Meta, items: list[Any]) -> s.No:
        return s.No(read_selection(items[0]), items[1], place_of(meta))

    def path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._bare(items[0]), "some", place_of(meta))

    def no_path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._bare(items[0]), "no", place_of(meta))

    def only_path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._bare(items[0]), "only", place_of(meta))

    def before(self, meta: Meta, items: list[Any]) -> s.Before:
        return s.Before(read_selection(items[0]), read_selection(items[1]), place_of(meta))

    def retry(self, meta: Meta, items: list[Any]) -> s.Retry:
        return s.Retry(read_selection(items[0]), items[1], place_of(meta))

    def no_retry(self, meta: Meta, items: list[Any]) -> s.NoRetry:
        return s.NoRetry(read_selection(items[0]), place_of(meta))

    def fallback(self, meta: Meta, items: list[Any]) -> s.Fallback:
        to = read_selection(items[1])
        if isinstance(to, s.Call):
            raise Refused(
                Diagnostic("not-a-service", "a fallback leads to a service or a `span`, not to a call", to.at)
            )
        return s.Fallback(read_selection(items[0]), to, place_of(meta))

    def circuit(self, meta: Meta, items: list[Any]) -> s.Circuit:
        return s.Circuit(read_selection(items[0]), items[1], place_of(meta))

    def timeout(self, meta: Meta, items: list[Any]) -> s.Timeout:
        return s.Timeout(read_selection(items[0]), items[1], place_of(meta))

    def budget(self, meta: Meta, items: list[Any]) -> s.Budget:
        return s.Budget(items[0], items[1] or (), place_of(meta))

    def budget_parts(self, meta: Meta, items: list[Any]) -> tuple[Any, ...]:
        return tuple(item for item in items if item is not None)

    def budget_part(self, meta: Meta, items: list[Any]) -> tuple[Any, s.Expression]:
        return items[0], items[1]

    def not_worse(self, meta: Meta, items: list[Any]) -> s.NotWorse:
        return s.NotWorse(items[0], items[2], items[3], place_of(meta))

    def schema(self, meta: Meta, items: list[Any]) -> s.Contract:
        return s.Contract("schema", read_string(items[0]), place_of(meta))

    def openapi(self, meta: Meta, items: list[Any]) -> s.Contract:
        return s.Contract("openapi", read_string(items[0]), place_of(meta))

    def comparison(self, meta: Meta, items: list[Any]) -> s.Comparison:
        return s.Comparison(items[0], place_of(meta))

    def retry_clauses(self, meta: Meta, items: list[Any]) -> tuple[s.Clause, ...]:
        return tuple(item for item in items if item is not None)

    circuit_clauses = retry_clauses

    def limit_clause(self, meta: Meta, items: list[Any]) -> s.Limit:
        return s.Limit(str(items[0]), str(items[1]), items[2], place_of(meta))  # type: ignore[arg-type]  # the lexer's

    def grows_clause(self, meta: Meta, items: list[Any]) -> s.Flag:
        return s.Flag(f"{items[0]} {items[1]}", place_of(meta))

    def flag_clause(self, meta: Meta, items: list[Any]) -> s.Flag:
        return s.Flag(str(items[0]), place_of(meta))

    def cause_clause(self, meta: Meta, items: list[Any]) -> s.Cause:
        return s.Cause(items[0], place_of(meta))

    def opens_clause(self, meta: Meta, items: list[Any]) -> s.Opens:
        if items[1] != "failures":
            raise Refused(
                Diagnostic(
                    "unknown-word", f"`{items[1]}` is not known here", place_of(items[1]), "did you mean `failures`?"
                )
            )
        return s.Opens(items[0], place_of(meta))

    # ## Paths

    def hop(self, meta: Meta, items: list[Any]) -> s.Leg:
        step, arrow, rest = items
        branches = rest if isinstance(rest, tuple) else (self._bare(rest),)
        return s.Leg(step, str(arrow), branches, place_of(meta))  # type: ignore[arg-type]  # the lexer's arrows

    def branches(self, meta: Meta, items: list[Any]) -> tuple[s.Leg, ...]:
        return tuple(self._bare(item) for item in items)

    def step(self, meta: Meta, items: list[Any]) -> s.Step:
        targets = tuple(as_target(item) for item in items)
        for target in targets:
            if target.spans == "any":
                raise Refused(Diagnostic("not-a-service", "a step of a path is a service, not any `span`", target.at))
        return s.Step(targets, place_of(meta))

    @staticmethod
    def _bare(item: s.Leg | s.Step) -> s.Leg:
        return item if isinstance(item, s.Leg) else s.Leg(item, None, (), item.at)
