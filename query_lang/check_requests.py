"""Is a ``when`` meaningful? Checks what it asks, whom, and with which options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from spanproof.query_lang import syntax as s
from spanproof.query_lang.check_claims import ClaimChecker
from spanproof.query_lang.diagnostics import did_you_mean
from spanproof.query_lang.types import Scope

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
BROKERS: Final = ("kafka", "nats", "rabbitmq")
MOST_REQUESTS: Final = 100_000
BODIES: Final = ("json", "body", "form")
REPEATABLE_OPTIONS: Final = ("header", "query", "file")
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "http": ("header", "query", "json", "body", "form", "file", "timeout", "repeat"),
    "grpc": ("header", "json", "descriptors", "tls", "timeout", "repeat"),
    "nats": ("header", "json", "body", "broker", "tls", "timeout", "repeat"),
    "kafka": ("header", "json", "body", "broker", "key", "tls", "timeout", "repeat"),
    "rabbitmq": ("header", "json", "body", "broker", "exchange", "tls", "timeout", "repeat"),
    "run": ("timeout", "repeat"),
    "trace": (),
}
ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):\d{1,5}")
GRPC_METHOD: Final = re.compile(r"/?(?:\w+\.)*\w+/\w+")


class RequestChecker(ClaimChecker):
    """Checks requests, and values that are named before and between them."""

    def let(self, let: s.Let, scope: Scope) -> Scope:
        """Check a value; return the scope with its name."""
        type_ = self.types.of(let.value, scope)
        self.constant(let.value, "a variable")
        self.one_response(let.value, scope)
        return replace(scope, variables={**scope.variables, let.name.text: replace(type_, many=False)})

    def when(self, when: s.When, scope: Scope) -> Scope:
        """Check a request; return the scope with its response."""
        takes = self._options_of(when)
        for target in when.targets:
            if isinstance(target, s.Text):
                self.types.check_names(target, scope)
        if when.kind == "grpc":
            self._grpc_target(*when.targets)
        seen: set[str] = set()
        for option in when.options:
            if takes is not None and option.kind not in takes:
                self.problem("misplaced", f"`{option.kind}` is no option of `when {_called(when)}`", option.at)
            if option.kind in seen and option.kind not in REPEATABLE_OPTIONS:
                self.problem("duplicate", f"`{option.kind}` stands twice", option.at)
            others = seen & {*BODIES, "file"} - {option.kind}
            if option.kind in (*BODIES, "file") and others and {option.kind, *others} != {"form", "file"}:
                self.problem("duplicate", "a request has one body", option.at, "files go with a `form` alone")
            seen.add(option.kind)
            self._option(option, scope)
        names = {None, when.name.text if when.name else None}
        repeated = scope.repeated | names if "repeat" in seen else scope.repeated - names
        requests = scope.requests | {when.name.text} if when.name else scope.requests
        return replace(scope, requests=requests, repeated=repeated)

    def one_response(self, node: s.Expression, scope: Scope) -> None:
        """Check that `node` needs no response of a request that was repeated: there are many."""
        for part in s.walk(node):
            if isinstance(part, s.Response) and part.step in scope.repeated:
                self.problem(
                    "many-responses",
                    "the request was repeated: this is no one value",
                    part.at,
                    "expect something of each response, or send one request more for the value",
                )

    def _options_of(self, when: s.When) -> tuple[str, ...] | None:
        """Return which options a request may have; None if nobody knows what it is."""
        if when.kind == "publish":
            broker = when.targets[0]
            if not isinstance(broker, s.Name) or broker.text not in BROKERS:
                text = broker.text if isinstance(broker, s.Name) else broker.plain
                listed = ", ".join(f"`{each}`" for each in BROKERS)
                hint = did_you_mean(text, BROKERS) or f"brokers are {listed}"
                self.problem("unknown-word", f"`{text}` is not a broker", broker.at, hint)
                return None
            return OPTIONS[broker.text]
        if when.kind in OPTIONS:
            return OPTIONS[when.kind]
        if when.kind not in METHODS:
            self.problem(
                "unknown-word", f"`{when.kind}` is not an HTTP method", when.at, did_you_mean(when.kind, METHODS)
            )
        return OPTIONS["http"]

    def _grpc_target(self, address: s.Text | s.Name, method: s.Text | s.Name) -> None:
        """Check the address and the method of a call, where they are written out."""
        for text, pattern, wanted in (
            (address, ADDRESS, "an address such as `127.0.0.1:50051`"),
            (method, GRPC_METHOD, "a method such as `shop.Payments/Charge`"),
        ):
            written_out = isinstance(text, s.Text) and all(isinstance(part, str) for part in text.parts)
            if isinstance(text, s.Text) and written_out and not pattern.fullmatch(text.plain):
                self.problem("bad-target", f"`{text.plain}` is not {wanted}", text.at)

    def _option(self, option: s.Option, scope: Scope) -> None:
        if option.kind == "header" and option.key is not None and option.key.plain.lower() == "traceparent":
            self.problem("misplaced", "`traceparent` is sent by spanproof, which must know the trace", option.at)
        if option.key is not None:
            self.types.check_names(option.key, scope)
        match option.kind:
            case "repeat":
                self._repeat(option, scope)
            case "timeout":
                self.expect(option.value, scope, "duration", "`timeout`")  # type: ignore[arg-type]
                self.one_response(option.value, scope)  # type: ignore[arg-type]
            case "json" | "form":
                self._json(option.value, scope)
            case "tls" if option.value is None:
                pass
            case _:
                self.types.of(option.value, scope)  # type: ignore[arg-type]  # not JSON
                self.constant(option.value, f"`{option.kind}`")  # type: ignore[arg-type]  # not JSON
                self.one_response(option.value, scope)  # type: ignore[arg-type]  # not JSON

    def _repeat(self, option: s.Option, scope: Scope) -> None:
        count, rate = option.value, option.rate
        assert rate is not None  # noqa: S101 (the grammar's own)
        self.expect(count, scope, "number", "`repeat`")  # type: ignore[arg-type]  # not JSON
        self.expect(rate, scope, "rate", "`at`")
        self.one_response(count, scope)  # type: ignore[arg-type]  # not JSON
        self.one_response(rate, scope)
        if isinstance(count, s.Number) and not (1 <= count.value <= MOST_REQUESTS and count.value == int(count.value)):
            self.problem("out-of-range", f"`repeat` takes a whole number from 1 to {MOST_REQUESTS}", count.at)
        if isinstance(rate, s.Number) and not rate.value:
            self.problem("out-of-range", "at this rate nothing is ever sent", rate.at, "write `20/s`")

    def _json(self, node: object, scope: Scope) -> None:
        if isinstance(node, s.Text):
            self.types.check_names(node, scope)
        elif isinstance(node, s.Name):
            self.types.of(node, scope)
        else:
            for part in s.children(node):
                self._json(part, scope)


def _called(when: s.When) -> str:
    """Return how a request is told from others in a message."""
    if when.kind == "publish" and isinstance(when.targets[0], s.Name):
        return f"publish {when.targets[0].text}"
    return when.kind
