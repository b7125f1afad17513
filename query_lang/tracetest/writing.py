"""What proofs say of variables and attributes of Tracetest's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from spanproof.query_lang.literals import read_duration_ns
from spanproof.query_lang.tracetest.constructs import refuse
from spanproof.query_lang.tracetest.expressions import Call, Expression, Text, Variable
from spanproof.query_lang.writing import NAME, escape, is_plain, safe_name, write_ns, write_text

_OF_RESOURCES: Final = (
    "cloud.", "container.", "deployment.", "device.", "host.", "k8s.", "os.", "process.", "service.", "telemetry.",
)  # fmt: skip
_OF_SPANS: Final = ("service.peer.",)


@dataclass(slots=True)
class Names:
    """The names that a proof needs from outside, and what they are called in it."""

    outside: dict[str, str] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)  # a variable of such a name would stand for another

    def use(self, name: str) -> str:
        """Return how a variable is called; it is asked for from outside unless the proof has set it."""
        called = safe_name(name)
        if name in self.outputs:
            return called
        if called in self.services:
            called += "_"
        self.outside[name] = called
        return called

    def take_service(self, name: str) -> bool:
        """Tell whether a service can be named without quotes; no variable will then be called so."""
        free = is_plain(name) and name not in self.outside.values() and name not in self.outputs
        self.services |= {name} if free else set()
        return free


def write_filled(text: Text, names: Names) -> str:
    """Return a text as a string, with variables put in. Raises Refused."""
    return '"' + "".join(escape(each) if isinstance(each, str) else _put_in(each, names) for each in text.parts) + '"'


def _put_in(expression: Expression, names: Names) -> str:
    """Return a variable in braces. Raises Refused for any other expression."""
    return "{" + names.use(the_variable(expression).name) + "}"


def the_variable(expression: Expression) -> Variable:
    """Return the variable that an expression is. Raises Refused where it is more than that."""
    term = expression.first
    if isinstance(term, Call):
        raise refuse("function", term.at, f"{term.name}()")
    if not isinstance(term, Variable) or expression.rest or expression.pipes:
        raise refuse("expression in a trigger", expression.at)
    return term


def write_attribute(name: str) -> str:
    """Return an attribute as conditions name it; Tracetest keeps those of the resource beside the span's own."""
    if name.startswith(_OF_RESOURCES) and not name.startswith(_OF_SPANS):
        head, name = "resource.", name
    else:
        own = "." in name and not name.startswith(("resource.", "scope.", "span.")) and ".response." not in f".{name}"
        head = "" if (own or name.startswith("http.")) and NAME.fullmatch(name) else "span."
    return head + (name if NAME.fullmatch(name) else write_text(name))


def write_duration(text: str) -> str:
    """Return a duration of Tracetest's as one of a proof."""
    return write_ns(read_duration_ns(text))
