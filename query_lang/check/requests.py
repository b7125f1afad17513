"""Checker of ``when``: target, options and body of requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from spanproof.query_lang.check.claims import ClaimChecker
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import suggest_names
from spanproof.query_lang.syntax.vocabulary import ValueType

HTTP_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
BROKERS: Final = ("kafka", "nats", "rabbitmq")
MAX_REQUESTS: Final = 100_000
BODY_OPTIONS: Final = ("json", "body", "form")
REPEATABLE_OPTIONS: Final = ("header", "query", "file")
OPTIONS_BY_REQUEST_KIND: Final[Mapping[str, tuple[str, ...]]] = {
    "http": ("header", "query", "json", "body", "form", "file", "timeout", "repeat"),
    "grpc": ("header", "json", "descriptors", "tls", "timeout", "repeat"),
    "nats": ("header", "json", "body", "broker", "tls", "timeout", "repeat"),
    "kafka": ("header", "json", "body", "broker", "key", "tls", "timeout", "repeat"),
    "rabbitmq": ("header", "json", "body", "broker", "exchange", "tls", "timeout", "repeat"),
    "run": ("timeout", "repeat"),
    "trace": (),
}
HOST_PORT_PATTERN: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):\d{1,5}")
GRPC_METHOD_PATTERN: Final = re.compile(r"/?(?:\w+\.)*\w+/\w+")


class RequestChecker(ClaimChecker):
    """Checker of requests and of the variables before and between them."""

    def check_let(self, let: s.Let, scope: Scope) -> Scope:
        """Check a variable. Return the scope with its name; without a value, it is a text from outside."""
        if let.value is None:
            return replace(scope, variables={**scope.variables, let.name.text: ValueType("any")})
        type_ = self.type_checker.infer(let.value, scope)
        self.check_constant(let.value, "a variable")
        self.check_single_response(let.value, scope)
        return replace(scope, variables={**scope.variables, let.name.text: replace(type_, is_many=False)})

    def check_when(self, when: s.When, scope: Scope) -> Scope:
        """Check a request. Return the scope with its response."""
        allowed = self._list_allowed_options(when)
        for target in when.targets:
            if isinstance(target, s.Text):
                self.type_checker.check_names(target, scope)
        if when.kind == "grpc":
            self._check_grpc_target(*when.targets)
        kinds: set[str] = set()
        for option in when.options:
            if allowed is not None and option.kind not in allowed:
                self.report(
                    "misplaced", f"`{option.kind}` is not an option of `when {_format_request_kind(when)}`", option.at
                )
            if option.kind in kinds and option.kind not in REPEATABLE_OPTIONS:
                self.report("duplicate", f"`{option.kind}` occurs twice", option.at)
            other_bodies = kinds & {*BODY_OPTIONS, "file"} - {option.kind}
            if (
                option.kind in (*BODY_OPTIONS, "file")
                and other_bodies
                and {option.kind, *other_bodies} != {"form", "file"}
            ):
                self.report(
                    "duplicate", "a request has only one body", option.at, "`file` can be combined only with `form`"
                )
            kinds.add(option.kind)
            self._check_option(option, scope)
        names = {None, when.name.text if when.name else None}
        repeated = scope.repeated | names if "repeat" in kinds else scope.repeated - names
        requests = scope.requests | {when.name.text} if when.name else scope.requests
        return replace(scope, requests=requests, repeated=repeated)

    def check_single_response(self, node: s.Expression, scope: Scope) -> None:
        """Check that `node` reads no response of a repeated request, which has many."""
        for part in s.walk(node):
            if isinstance(part, s.Response) and part.step in scope.repeated:
                self.report(
                    "many-responses",
                    "the request is repeated, so this is not a single value",
                    part.at,
                    "write a claim about each response, or send one more request for the value",
                )

    def _list_allowed_options(self, when: s.When) -> tuple[str, ...] | None:
        """Return the options that a request can have, or None if its kind is unknown."""
        if when.kind == "publish":
            broker = when.targets[0]
            if not isinstance(broker, s.Name) or broker.text not in BROKERS:
                text = broker.text if isinstance(broker, s.Name) else broker.plain
                listed = ", ".join(f"`{name}`" for name in BROKERS)
                hint = suggest_names(text, BROKERS) or f"brokers are {listed}"
                self.report("unknown-word", f"`{text}` is not a broker", broker.at, hint)
                return None
            return OPTIONS_BY_REQUEST_KIND[broker.text]
        if when.kind in OPTIONS_BY_REQUEST_KIND:
            return OPTIONS_BY_REQUEST_KIND[when.kind]
        if when.kind not in HTTP_METHODS:
            self.report(
                "unknown-word", f"`{when.kind}` is not an HTTP method", when.at, suggest_names(when.kind, HTTP_METHODS)
            )
        return OPTIONS_BY_REQUEST_KIND["http"]

    def _check_grpc_target(self, address: s.Text | s.Name, method: s.Text | s.Name) -> None:
        """Check the address and the method of a gRPC call, if they have no placeholders."""
        for text, pattern, wanted in (
            (address, HOST_PORT_PATTERN, "an address such as `127.0.0.1:50051`"),
            (method, GRPC_METHOD_PATTERN, "a method such as `shop.Payments/Charge`"),
        ):
            written_out = isinstance(text, s.Text) and all(isinstance(part, str) for part in text.parts)
            if isinstance(text, s.Text) and written_out and not pattern.fullmatch(text.plain):
                self.report("bad-target", f"`{text.plain}` is not {wanted}", text.at)

    def _check_option(self, option: s.Option, scope: Scope) -> None:
        if option.kind == "header" and option.key is not None and option.key.plain.lower() == "traceparent":
            self.report("misplaced", "spanproof sets `traceparent` itself, as it must know the trace", option.at)
        if option.key is not None:
            self.type_checker.check_names(option.key, scope)
        match option.kind:
            case "repeat":
                self._check_repeat(option, scope)
            case "timeout":
                self.check_constant_of_kind(option.value, scope, "duration", "`timeout`")  # type: ignore[arg-type]
                self.check_single_response(option.value, scope)  # type: ignore[arg-type]
            case "json" | "form":
                self._check_json(option.value, scope)
            case "tls" if option.value is None:
                pass
            case _:
                self.type_checker.infer(option.value, scope)  # type: ignore[arg-type]  # not JSON
                self.check_constant(option.value, f"`{option.kind}`")  # type: ignore[arg-type]  # not JSON
                self.check_single_response(option.value, scope)  # type: ignore[arg-type]  # not JSON

    def _check_repeat(self, option: s.Option, scope: Scope) -> None:
        count, rate = option.value, option.rate
        assert rate is not None  # noqa: S101 (the grammar's own)
        self.check_constant_of_kind(count, scope, "number", "`repeat`")  # type: ignore[arg-type]  # not JSON
        self.check_constant_of_kind(rate, scope, "rate", "`at`")
        self.check_single_response(count, scope)  # type: ignore[arg-type]  # not JSON
        self.check_single_response(rate, scope)
        if isinstance(count, s.Number) and not (1 <= count.value <= MAX_REQUESTS and count.value == int(count.value)):
            self.report("out-of-range", f"`repeat` takes a whole number from 1 to {MAX_REQUESTS}", count.at)
        if isinstance(rate, s.Number) and not rate.value:
            self.report("out-of-range", "a rate of 0 sends no requests", rate.at, "write `20/s`")

    def _check_json(self, node: object, scope: Scope) -> None:
        if isinstance(node, s.Text):
            self.type_checker.check_names(node, scope)
        elif isinstance(node, s.Name):
            self.type_checker.infer(node, scope)
        else:
            for part in s.iter_children(node):
                self._check_json(part, scope)


def _format_request_kind(when: s.When) -> str:
    """Return the name of a request's kind in messages."""
    if when.kind == "publish" and isinstance(when.targets[0], s.Name):
        return f"publish {when.targets[0].text}"
    return when.kind
