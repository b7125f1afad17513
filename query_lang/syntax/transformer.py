"""Transformer of Lark's parse tree into nodes: items, statements, claims and paths."""

from __future__ import annotations

from typing import Any, Literal

from lark import v_args
from lark.tree import Meta

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.expression_transformer import (
    ExpressionTransformer,
    locate_meta,
    read_name,
    read_selection,
    read_service,
    read_string,
    to_span_selection,
)
from spanproof.query_lang.syntax.literals import DiagnosticError, read_number_literal


@v_args(meta=True)
class ProofTransformer(ExpressionTransformer):
    """Bottom-up builder of :mod:`spanproof.query_lang.syntax.nodes`, with one method per rule of the grammar."""

    # ## Items and statements

    def start(self, meta: Meta, items: list[Any]) -> tuple[s.Item, ...]:
        return tuple(item for item in items if item is not None)

    def use(self, meta: Meta, items: list[Any]) -> s.Use:
        return s.Use(read_string(items[0]), locate_meta(meta))

    def let(self, meta: Meta, items: list[Any]) -> s.Let:
        return s.Let(read_name(items[0]), items[1], locate_meta(meta))

    def define(self, meta: Meta, items: list[Any]) -> s.Define:
        name, *parameters, block = items
        return s.Define(str(name), tuple(read_name(token) for token in parameters if token), block, locate_meta(meta))

    def proof(self, meta: Meta, items: list[Any]) -> s.Proof:
        name, tags, block = items
        plain = read_string(name).plain
        if not plain.strip():
            raise DiagnosticError(Diagnostic("incomplete", "a proof has a name", locate_meta(name)))
        return s.Proof(plain, tags or (), block, locate_meta(meta))

    def tags(self, meta: Meta, items: list[Any]) -> tuple[str, ...]:
        return tuple(str(tag) for tag in items)

    def hook(self, meta: Meta, items: list[Any]) -> s.Hook:
        return s.Hook("before" if items[0] == "before" else "after", items[1], locate_meta(meta))

    def declaration(self, meta: Meta, items: list[Any]) -> s.Declaration:
        kind: Literal["retries", "distinct"] = "retries" if items[0] == "retries" else "distinct"
        return s.Declaration(kind, read_selection(items[1]), locate_meta(meta))

    def block(self, meta: Meta, items: list[Any]) -> tuple[s.Statement, ...]:
        return tuple(item for item in items if item is not None)

    def when(self, meta: Meta, items: list[Any]) -> s.When:
        (kind, targets), options, name = items
        return s.When(kind, targets, options or (), read_name(name) if name else None, locate_meta(meta))

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
        return s.Option("header", read_string(items[0]), items[1], None, locate_meta(meta))

    def query(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("query", read_string(items[0]), items[1], None, locate_meta(meta))

    def file(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("file", read_string(items[0]), items[1], None, locate_meta(meta))

    def json_body(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("json", None, items[0], None, locate_meta(meta))

    def text_body(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("body", None, items[0], None, locate_meta(meta))

    def form(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("form", None, items[0], None, locate_meta(meta))

    def request_timeout(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("timeout", None, items[0], None, locate_meta(meta))

    def repeat(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("repeat", None, items[0], items[1], locate_meta(meta))

    def broker(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("broker", None, items[0], None, locate_meta(meta))

    def exchange(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("exchange", None, items[0], None, locate_meta(meta))

    def message_key(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("key", None, items[0], None, locate_meta(meta))

    def descriptors(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("descriptors", None, read_string(items[0]), None, locate_meta(meta))

    def tls(self, meta: Meta, items: list[Any]) -> s.Option:
        return s.Option("tls", None, read_string(items[0]) if items[0] else None, None, locate_meta(meta))

    def json_object(self, meta: Meta, items: list[Any]) -> s.JsonObject:
        return s.JsonObject(tuple(item for item in items if item is not None), locate_meta(meta))

    def json_pair(self, meta: Meta, items: list[Any]) -> tuple[s.Text, s.Json]:
        return read_string(items[0]), items[1]

    def json_array(self, meta: Meta, items: list[Any]) -> s.JsonArray:
        return s.JsonArray(tuple(item for item in items if item is not None), locate_meta(meta))

    def json_value(self, meta: Meta, items: list[Any]) -> s.Json:
        (token,) = items
        if token.type == "STRING":
            return read_string(token)
        return read_number_literal(str(token), locate_meta(token)) if token.type == "NUMBER" else read_name(token)

    def json_negative(self, meta: Meta, items: list[Any]) -> s.Json:
        number = items[-1]
        return s.Negative(read_number_literal(str(number), locate_meta(number)), locate_meta(meta))

    def settle(self, meta: Meta, items: list[Any]) -> s.SettleStatement:
        return s.SettleStatement(items[0], items[1], locate_meta(meta))

    def given(self, meta: Meta, items: list[Any]) -> s.Given:
        return s.Given(read_selection(items[0]) if items[0] else None, items[1], items[2], False, locate_meta(meta))

    def baseline(self, meta: Meta, items: list[Any]) -> s.Given:
        return s.Given(read_selection(items[0]), items[1], items[2], True, locate_meta(meta))

    def metric_query(self, meta: Meta, items: list[Any]) -> s.MetricQuery:
        value, by, start, window, where, step = items
        given = s.Given(read_selection(start) if start else None, window, where, False, locate_meta(meta))
        return s.MetricQuery(value, by or (), given, step, locate_meta(meta))

    def last(self, meta: Meta, items: list[Any]) -> s.TimeWindow:
        return s.TimeWindow("last", (items[0],), locate_meta(meta))

    def since(self, meta: Meta, items: list[Any]) -> s.TimeWindow:
        return s.TimeWindow("since", (items[0],), locate_meta(meta))

    def between(self, meta: Meta, items: list[Any]) -> s.TimeWindow:
        return s.TimeWindow("between", tuple(items), locate_meta(meta))

    def time(self, meta: Meta, items: list[Any]) -> s.Expression:
        return read_string(items[0]) if items[0].type == "STRING" else read_name(items[0])

    def apply(self, meta: Meta, items: list[Any]) -> s.Apply:
        return s.Apply(str(items[0]), tuple(item for item in items[1:] if item is not None), locate_meta(meta))

    # ## Claims

    def expectation(self, meta: Meta, items: list[Any]) -> s.Expectation:
        claim, share, by, having, confidence, label = items
        label = read_string(label) if label else None
        return s.Expectation(claim, share, by or (), having, confidence, label, locate_meta(meta))

    def share(self, meta: Meta, items: list[Any]) -> s.ShareClause:
        return s.ShareClause(str(items[1]), items[2], locate_meta(meta))  # type: ignore[arg-type]  # the lexer's comparators

    def by(self, meta: Meta, items: list[Any]) -> tuple[s.Name, ...]:
        return tuple(read_name(item) for item in items)

    def having(self, meta: Meta, items: list[Any]) -> s.Having:
        return s.Having(str(items[0]), items[1], locate_meta(meta))  # type: ignore[arg-type]  # the lexer's comparators

    def name(self, meta: Meta, items: list[Any]) -> s.Name | s.Text | None:
        return read_service(items[0])

    def confidence(self, meta: Meta, items: list[Any]) -> s.Expression:
        return items[0]  # type: ignore[no-any-return]  # an expression already

    def every(self, meta: Meta, items: list[Any]) -> s.Every:
        return s.Every(read_selection(items[0]), items[1], locate_meta(meta))

    def some(self, meta: Meta, items: list[Any]) -> s.Some:
        return s.Some(read_selection(items[0]), items[1], locate_meta(meta))

    def no(self, meta: Meta, items: list[Any]) -> s.No:
        return s.No(read_selection(items[0]), items[1], locate_meta(meta))

    def path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._to_segment(items[0]), "some", locate_meta(meta))

    def no_path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._to_segment(items[0]), "no", locate_meta(meta))

    def only_path(self, meta: Meta, items: list[Any]) -> s.Path:
        return s.Path(self._to_segment(items[0]), "only", locate_meta(meta))

    def if_then(self, meta: Meta, items: list[Any]) -> s.IfThen:
        return s.IfThen(items[0], items[1], locate_meta(meta))

    def before(self, meta: Meta, items: list[Any]) -> s.Before:
        return s.Before(read_selection(items[0]), read_selection(items[1]), items[2], locate_meta(meta))

    def retry(self, meta: Meta, items: list[Any]) -> s.Retry:
        return s.Retry(read_selection(items[0]), items[1], locate_meta(meta))

    def no_retry(self, meta: Meta, items: list[Any]) -> s.NoRetry:
        return s.NoRetry(read_selection(items[0]), locate_meta(meta))

    def fallback(self, meta: Meta, items: list[Any]) -> s.Fallback:
        to = read_selection(items[1])
        if isinstance(to, s.CallSelection):
            raise DiagnosticError(
                Diagnostic("not-a-service", "a fallback leads to a service or a `span`, not to a call", to.at)
            )
        return s.Fallback(read_selection(items[0]), to, locate_meta(meta))

    def circuit(self, meta: Meta, items: list[Any]) -> s.Circuit:
        return s.Circuit(read_selection(items[0]), items[1], locate_meta(meta))

    def timeout(self, meta: Meta, items: list[Any]) -> s.Timeout:
        return s.Timeout(read_selection(items[0]), items[1], locate_meta(meta))

    def budget(self, meta: Meta, items: list[Any]) -> s.Budget:
        return s.Budget(items[0], items[1] or (), locate_meta(meta))

    def budget_parts(self, meta: Meta, items: list[Any]) -> tuple[Any, ...]:
        return tuple(item for item in items if item is not None)

    def budget_part(self, meta: Meta, items: list[Any]) -> tuple[Any, s.Expression]:
        return items[0], items[1]

    def not_worse(self, meta: Meta, items: list[Any]) -> s.BaselineTest:
        return s.BaselineTest(items[0], items[2], items[3], False, locate_meta(meta))

    def near(self, meta: Meta, items: list[Any]) -> s.BaselineTest:
        return s.BaselineTest(items[0], items[2], items[1], True, locate_meta(meta))

    def margin(self, meta: Meta, items: list[Any]) -> s.Margin:
        return s.Margin(items[0], items[1], locate_meta(meta))

    def schema(self, meta: Meta, items: list[Any]) -> s.Contract:
        return s.Contract("schema", read_string(items[0]), locate_meta(meta))

    def openapi(self, meta: Meta, items: list[Any]) -> s.Contract:
        return s.Contract("openapi", read_string(items[0]), locate_meta(meta))

    def comparison(self, meta: Meta, items: list[Any]) -> s.ComparisonClaim:
        return s.ComparisonClaim(items[0], locate_meta(meta))

    def retry_clauses(self, meta: Meta, items: list[Any]) -> tuple[s.Clause, ...]:
        return tuple(item for item in items if item is not None)

    circuit_clauses = retry_clauses

    def limit_clause(self, meta: Meta, items: list[Any]) -> s.Limit:
        return s.Limit(str(items[0]), str(items[1]), items[2], locate_meta(meta))  # type: ignore[arg-type]  # the lexer's

    def grows_clause(self, meta: Meta, items: list[Any]) -> s.Flag:
        return s.Flag(f"{items[0]} {items[1]}", locate_meta(meta))

    def flag_clause(self, meta: Meta, items: list[Any]) -> s.Flag:
        return s.Flag(str(items[0]), locate_meta(meta))

    def cause_clause(self, meta: Meta, items: list[Any]) -> s.Cause:
        return s.Cause(items[0], locate_meta(meta))

    def opens_clause(self, meta: Meta, items: list[Any]) -> s.OpensAfter:
        if items[1] != "failures":
            raise DiagnosticError(
                Diagnostic(
                    "unknown-word", f"`{items[1]}` is not known here", locate_meta(items[1]), "did you mean `failures`?"
                )
            )
        return s.OpensAfter(items[0], locate_meta(meta))

    # ## Paths

    def hop(self, meta: Meta, items: list[Any]) -> s.PathSegment:
        step, arrow, rest = items
        branches = rest if isinstance(rest, tuple) else (self._to_segment(rest),)
        return s.PathSegment(step, str(arrow), branches, locate_meta(meta))  # type: ignore[arg-type]  # the lexer's arrows

    def branches(self, meta: Meta, items: list[Any]) -> tuple[s.PathSegment, ...]:
        return tuple(self._to_segment(item) for item in items)

    def step(self, meta: Meta, items: list[Any]) -> s.Step:
        targets = tuple(to_span_selection(item) for item in items)
        for target in targets:
            if target.spans == "any":
                raise DiagnosticError(
                    Diagnostic("not-a-service", "a step of a path is a service, not any `span`", target.at)
                )
        return s.Step(targets, locate_meta(meta))

    @staticmethod
    def _to_segment(item: s.PathSegment | s.Step) -> s.PathSegment:
        return item if isinstance(item, s.PathSegment) else s.PathSegment(item, None, (), item.at)
