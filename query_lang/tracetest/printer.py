"""Printer of Tracetest's variables and attributes as names of a proof."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field

from spanproof.query_lang.syntax.literals import is_name, read_duration_ns
from spanproof.query_lang.syntax.printer import (
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


class ProofNames(Struct):
    """Names that a proof uses, and the external variables that it needs."""

    external_variables: dict[str, str] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)  # names that variables must not have

    def use_variable(self, name: str) -> str:
        """Return the name of a variable. It is an external variable unless an output of the test defines it."""
        safe_name = make_safe_name(name)
        if name in self.outputs:
            return safe_name
        if safe_name in self.services:
            safe_name += "_"
        self.external_variables[name] = safe_name
        return safe_name

    def reserve_service_name(self, name: str) -> bool:
        """Return whether a service can be named without quotes. If so, reserve the name: no variable gets it."""
        is_free = is_plain_name(name) and name not in self.external_variables.values() and name not in self.outputs
        self.services |= {name} if is_free else set()
        return is_free


def write_interpolated(text: TracetestText, names: ProofNames) -> str:
    """Return a text as a string literal with variables as placeholders. Raises DiagnosticError."""
    return (
        '"'
        + "".join(escape_string(part) if isinstance(part, str) else _write_variable(part, names) for part in text.parts)
        + '"'
    )


def _write_variable(expression: TracetestExpression, names: ProofNames) -> str:
    """Return a variable in braces. Raises DiagnosticError for any other expression."""
    return "{" + names.use_variable(require_variable(expression).name) + "}"


def require_variable(expression: TracetestExpression) -> TracetestVariable:
    """Return the variable that an expression consists of. Raises DiagnosticError if it is not just a variable."""
    term = expression.first
    if isinstance(term, TracetestCall):
        raise make_no_equivalent_error("function", term.at, f"{term.name}()")
    if not isinstance(term, TracetestVariable) or expression.rest or expression.pipes:
        raise make_no_equivalent_error("expression in a trigger", expression.at)
    return term


def write_attribute(name: str) -> str:
    """Return the name of an attribute in conditions. Tracetest does not separate resource and span attributes."""
    if name.startswith(_RESOURCE_PREFIXES) and not name.startswith(_SPAN_PREFIXES):
        prefix, name = "resource.", name
    else:
        is_plain = (
            "." in name and not name.startswith(("resource.", "scope.", "span.")) and ".response." not in f".{name}"
        )
        prefix = "" if (is_plain or name.startswith("http.")) and is_name(name) else "span."
    return prefix + (name if is_name(name) else format_string(name))


def write_duration(text: str) -> str:
    """Return a duration of Tracetest's in the format of proofs."""
    return format_duration_ns(read_duration_ns(text))
