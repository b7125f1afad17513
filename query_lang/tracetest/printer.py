"""What proofs say of variables and attributes of Tracetest's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from spanproof.query_lang.syntax.literals import read_duration_ns
from spanproof.query_lang.syntax.printer import (
    NAME_PATTERN,
    escape_string,
    format_duration_ns,
    format_string,
    is_plain_name,
    make_safe_name,
)
from spanproof.query_lang.tracetest.expressions import (
    TracetestCall,
    TracetestExpression,
    TracetestText,
    TracetestVariable,
)
from spanproof.query_lang.tracetest.unsupported import make_no_equivalent_error

_RESOURCE_PREFIXES: Final = (
    "cloud.", "container.", "deployment.", "device.", "host.", "k8s.", "os.", "process.", "service.", "telemetry.",
)  # fmt: skip
_SPAN_PREFIXES: Final = ("service.peer.",)


@dataclass(slots=True)
class ProofNames:
    """The names that a proof needs from outside, and what they are called in it."""

    external_variables: dict[str, str] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)  # a variable of such a name would stand for another

    def use_variable(self, name: str) -> str:
        """Return how a variable is called; it is asked for from outside unless the proof has set it."""
        called = make_safe_name(name)
        if name in self.outputs:
            return called
        if called in self.services:
            called += "_"
        self.external_variables[name] = called
        return called

    def reserve_service_name(self, name: str) -> bool:
        """Tell whether a service can be named without quotes; no variable will then be called so."""
        free = is_plain_name(name) and name not in self.external_variables.values() and name not in self.outputs
        self.services |= {name} if free else set()
        return free


def write_interpolated(text: TracetestText, names: ProofNames) -> str:
    """Return a text as a string, with variables put in. Raises Refused."""
    return (
        '"'
        + "".join(escape_string(each) if isinstance(each, str) else _write_variable(each, names) for each in text.parts)
        + '"'
    )


def _write_variable(expression: TracetestExpression, names: ProofNames) -> str:
    """Return a variable in braces. Raises Refused for any other expression."""
    return "{" + names.use_variable(require_variable(expression).name) + "}"


def require_variable(expression: TracetestExpression) -> TracetestVariable:
    """Return the variable that an expression is. Raises Refused where it is more than that."""
    term = expression.first
    if isinstance(term, TracetestCall):
        raise make_no_equivalent_error("function", term.at, f"{term.name}()")
    if not isinstance(term, TracetestVariable) or expression.rest or expression.pipes:
        raise make_no_equivalent_error("expression in a trigger", expression.at)
    return term


def write_attribute(name: str) -> str:
    """Return an attribute as conditions name it; Tracetest keeps those of the resource beside the span's own."""
    if name.startswith(_RESOURCE_PREFIXES) and not name.startswith(_SPAN_PREFIXES):
        head, name = "resource.", name
    else:
        own = "." in name and not name.startswith(("resource.", "scope.", "span.")) and ".response." not in f".{name}"
        head = "" if (own or name.startswith("http.")) and NAME_PATTERN.fullmatch(name) else "span."
    return head + (name if NAME_PATTERN.fullmatch(name) else format_string(name))


def write_duration(text: str) -> str:
    """Return a duration of Tracetest's as one of a proof."""
    return format_duration_ns(read_duration_ns(text))
