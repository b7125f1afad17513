"""Constructs of Tracetest without an equivalent in a proof, each with a remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.literals import DiagnosticError
from spanproof.query_lang.syntax.nodes import TextRange

_NO_FILTER_HINT = "a proof compares whole values; search a text with `=~`"
_NO_BROWSER_HINT = "a proof sends a request; `when run` starts a command with TRACEPARENT in its environment"

NO_EQUIVALENT: Final[Mapping[str, str]] = {
    # resources
    "TestSuite": "turn its tests into one folder; `spanproof run FOLDER` runs them",
    "Transaction": "turn its tests into one folder; `spanproof run FOLDER` runs them",
    "VariableSet": "pass values by `--var NAME=VALUE` or `--env-file FILE`",
    "Environment": "pass values by `--var NAME=VALUE` or `--env-file FILE`",
    "PollingProfile": "a proof ends once its trace is settled; `settle within 60s` sets the longest wait",
    "DataStore": "services or a collector send their spans to spanproof",
    "Config": "see `spanproof run --help`",
    "Demo": "`spanproof demo` starts a demo shop",
    "Analyzer": "write `expect every span has …` for what every span must have",
    "TestRunner": "`spanproof run` exits with code 0 if every proof passes",
    # triggers
    "cypress": _NO_BROWSER_HINT,
    "playwright": _NO_BROWSER_HINT,
    "playwrightengine": _NO_BROWSER_HINT,
    "artillery": "`repeat 100 at 20/s` sends a request many times",
    "k6": "`repeat 100 at 20/s` sends a request many times",
    "basic auth with variables": "a proof cannot encode base64; pass the whole header as a variable",
    "kafka authentication": "write the credentials into `broker`, or use a broker without authentication",
    "sslVerification: false": "certificates are always verified",
    "HTTP method": "only the methods of the HTTP standards are supported",
    "traceparent header": "spanproof sends its own header, as it must know the trace",
    "gRPC auth": "Tracetest does not send it; write a `header`",
    # selectors
    ":nth_child": "a proof picks the first or the last span; use a condition that only this span satisfies",
    "position and other selectors": "`first(…)` and `last(…)` pick from one selection; write a claim for each",
    "${…} in a selector": "Tracetest does not replace variables in selectors",
    "decimal in a selector": "Tracetest formats it with two digits and compares texts",
    "trigger with other filters": "no span with the name `Tracetest trigger` has this attribute",
    # assertions
    "assertion without an attribute": "a claim is about spans or the response",
    "attribute of every span": "Tracetest also checks the trigger's own span, which has no such attribute",
    "count of the trigger": "there is exactly one response; write a claim about it",
    "attribute of the trigger": "a response has `status`, `headers`, `body`, `json` and `duration`",
    "tracetest.response of a span": 'only the trigger\'s span has it: `span[name="Tracetest trigger"]`',
    "tracetest.span.start_time": "compare times as durations, or by `before`",
    "tracetest.span.end_time": "compare times as durations, or by `before`",
    "span.events": 'write `event[name == "…"]`',
    "tracetest.span.type compared": "it is supported only in a selector, or with `=` or `!=`",
    "attribute in a text": "a text can contain variables, not attributes",
    "json_path of an attribute": "an attribute is compared as a whole; search a text with `=~`",
    "json_path with more than names and places": "a part of a response is one value: `response.json.items[0].id`",
    "json_path beside other filters": "a part of a response is one value: `response.json.items[0].id`",
    "regex": _NO_FILTER_HINT,
    "regex_group": _NO_FILTER_HINT,
    "get_index": "a part of a response is one value: `response.json.items[0]`",
    "type": 'a JSON schema can check the types of parts: `response matches schema "…"`',
    "JSON contains": 'a JSON schema can check the content of a body: `response matches schema "…"`',
    "array": "compare a value with `in [ … ]`",
    "contains after a calculation": "only a text can be searched, not a number",
    "not-contains of a variable": "write the text as a regular expression after `!~`",
    "duration beside another value": "compare a duration with one that has a unit",
    "order of texts": "Tracetest compares whole numbers",
    "function": "a proof does not generate data; pass it as a variable",
    "expression in a trigger": "name the value: `let total = …`, and write `{total}`",
    # the rest
    "output of a span": "`let` can read a part of a response",
    "variable outside of a text in JSON": "put it in a string, or write the value itself",
    "skipTraceCollection with spans": "without a trace there are no spans for claims",
}


def make_no_equivalent_error(construct: str, at: TextRange, shown: str | None = None) -> DiagnosticError:
    """Return the error for a construct without an equivalent. `shown` is its text in the file."""
    message = f"`{shown or construct}` has no equivalent in a proof"
    return DiagnosticError(Diagnostic("no-equivalent", message, at, NO_EQUIVALENT[construct]))


def make_malformed_error(message: str, at: TextRange, help_: str | None = None) -> DiagnosticError:
    """Return the error for a definition that Tracetest would reject, too."""
    return DiagnosticError(Diagnostic("malformed", message, at, help_))
