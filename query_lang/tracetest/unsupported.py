"""What Tracetest has and a proof has not: each by its name, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.literals import DiagnosticError
from spanproof.query_lang.syntax.nodes import TextRange

_NO_POSITION_HINT = "a proof does not pick spans by their place in the tree: say what tells this span from the others"
_NO_FILTER_HINT = "a proof compares values as they are; a text is searched with `=~`"
_NO_BROWSER_HINT = "a proof sends a request; `when run` starts a command with TRACEPARENT in its environment"

NO_EQUIVALENT: Final[Mapping[str, str]] = {
    # resources
    "TestSuite": "turn its tests into one folder; `spanproof run FOLDER` carries them out",
    "Transaction": "turn its tests into one folder; `spanproof run FOLDER` carries them out",
    "VariableSet": "give values as `--var NAME=VALUE`, or `--env-file FILE`",
    "Environment": "give values as `--var NAME=VALUE`, or `--env-file FILE`",
    "PollingProfile": "a proof ends once its trace is settled; `settle within 60s` says how long to wait at most",
    "DataStore": "services send their spans to spanproof itself, or a collector does",
    "Config": "see `spanproof run --help`",
    "Demo": "`spanproof demo` starts a shop of its own",
    "Analyzer": "say with `expect every span has …` what every span must have",
    "TestRunner": "`spanproof run` leaves with 0 if every proof passes",
    # triggers
    "cypress": _NO_BROWSER_HINT,
    "playwright": _NO_BROWSER_HINT,
    "playwrightengine": _NO_BROWSER_HINT,
    "artillery": "`repeat 100 at 20/s` sends a request many times",
    "k6": "`repeat 100 at 20/s` sends a request many times",
    "basic auth with variables": "nothing in a proof writes base64; pass the whole header as a variable",
    "kafka authentication": "write the credentials into `broker`, or ask a broker that wants none",
    "sslVerification: false": "certificates are always verified",
    "HTTP method": "requests are sent by the methods of HTTP's own standards",
    "traceparent header": "spanproof sends its own, as it must know the trace",
    "gRPC auth": "Tracetest does not send it; write a `header`",
    # selectors
    ":first": _NO_POSITION_HINT,
    ":last": _NO_POSITION_HINT,
    ":nth_child": _NO_POSITION_HINT,
    "span[…] span[…]": "a condition is about one span; `path a ->> b` says which service asked which",
    "${…} in a selector": "Tracetest takes it as it stands",
    "decimal in a selector": "Tracetest writes it with two digits, and compares texts",
    "trigger with other filters": "no span is called `Tracetest trigger` and has that",
    # assertions
    "assertion without an attribute": "a claim is about spans or the response",
    "attribute of every span": "Tracetest asks it of the trigger's own span, too, which has no such attribute",
    "count of the trigger": "there is one response; say something of it",
    "attribute of the trigger": "a response has `status`, `headers`, `body`, `json` and `duration`",
    "tracetest.response of a span": 'only the trigger\'s span has it: `span[name="Tracetest trigger"]`',
    "tracetest.span.start_time": "times are compared as durations, or by `before`",
    "tracetest.span.end_time": "times are compared as durations, or by `before`",
    "span.events": 'write `event[name == "…"]`',
    "tracetest.span.type compared": "it is known where it stands in a selector, or after `=` or `!=`",
    "attribute in a text": "a text holds variables, not attributes",
    "json_path of an attribute": "an attribute is compared as it stands; a text is searched with `=~`",
    "json_path with more than names and places": "a part of a response is one value: `response.json.items[0].id`",
    "json_path beside other filters": "a part of a response is one value: `response.json.items[0].id`",
    "regex": _NO_FILTER_HINT,
    "regex_group": _NO_FILTER_HINT,
    "get_index": "a part of a response is one value: `response.json.items[0]`",
    "type": 'a JSON schema says of what type parts are: `response matches schema "…"`',
    "JSON contains": 'a JSON schema says what a body must hold: `response matches schema "…"`',
    "array": "a value is compared with `in [ … ]`",
    "contains after a calculation": "a text is searched, not a number",
    "not-contains of a variable": "write the text as a regular expression after `!~`",
    "duration beside another value": "compare a duration with one that has a unit",
    "order of texts": "Tracetest compares whole numbers",
    "function": "a proof makes no data up; pass it as a variable",
    "expression in a trigger": "name the value: `let total = …`, and write `{total}`",
    # the rest
    "output of a span": "`let` takes a part of a response",
    "variable outside of a text in JSON": "write the text around it, or the value itself",
    "skipTraceCollection with spans": "without a trace there are no spans to claim anything of",
}


def make_no_equivalent_error(construct: str, at: TextRange, shown: str | None = None) -> DiagnosticError:
    """Return the error that says of a construct that it has no equivalent; `shown` is how it stands in the file."""
    message = f"`{shown or construct}` has no equivalent in a proof"
    return DiagnosticError(Diagnostic("no-equivalent", message, at, NO_EQUIVALENT[construct]))


def make_malformed_error(message: str, at: TextRange, help_: str | None = None) -> DiagnosticError:
    """Return the error that says of a definition that Tracetest would not take it either."""
    return DiagnosticError(Diagnostic("malformed", message, at, help_))
