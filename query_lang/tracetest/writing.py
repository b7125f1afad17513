"""Parts of proofs as they are written: texts, names, durations, JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.literals import UNITS_NS, read_duration_ns
from spanproof.query_lang.parse import keywords
from spanproof.query_lang.tracetest.constructs import refuse
from spanproof.query_lang.tracetest.expressions import Call, Expression, Text, Variable

WIDTH: Final = 100
INDENT: Final = "  "
_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:[-.]\w+)*")
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "{": "\\{", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_OF_RESOURCES: Final = (
    "cloud.", "container.", "deployment.", "device.", "host.", "k8s.", "os.", "process.", "service.", "telemetry.",
)  # fmt: skip
_OF_SPANS: Final = ("service.peer.",)
Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | Decimal | int | bool | Written | None"


@dataclass(frozen=True, slots=True)
class Written:
    """What stands in JSON as it is: a name, or a text with names in it."""

    text: str


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


def safe_name(name: str) -> str:
    """Return a name that no field, function or word of the language has."""
    called = re.sub(r"\W", "_", name)
    taken = called in (*keywords(), *v.SPAN_FIELDS, *v.CALL_FIELDS, *v.FUNCTIONS, *v.CONSTANTS, "response", "traces")
    return f"{called}_" if taken else f"_{called}" if called[:1].isdigit() else called


def is_plain(name: str) -> bool:
    """Tell whether a name needs no quotes, and is no word of the language."""
    return bool(_NAME.fullmatch(name)) and safe_name(name) == re.sub(r"\W", "_", name)


def write_text(text: str) -> str:
    """Return a text as a string, in which nothing is put in."""
    return f'"{_escape(text)}"'


def write_filled(text: Text, names: Names) -> str:
    """Return a text as a string, with variables put in. Raises Refused."""
    return '"' + "".join(_escape(each) if isinstance(each, str) else _put_in(each, names) for each in text.parts) + '"'


def _escape(text: str) -> str:
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in text)
    return re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]", lambda match: f"\\u{ord(match.group()):04x}", escaped)


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
        head = "" if (own or name.startswith("http.")) and _NAME.fullmatch(name) else "span."
    return head + (name if _NAME.fullmatch(name) else write_text(name))


def write_duration(text: str) -> str:
    """Return a duration of Tracetest's as one of a proof."""
    return write_ns(read_duration_ns(text))


def write_ns(ns: int) -> str:
    """Return nanoseconds in the largest unit that keeps them whole."""
    for unit in ("h", "m", "s", "ms", "us"):
        if ns and ns % UNITS_NS[unit] == 0:
            return f"{ns // UNITS_NS[unit]}{unit}"
    return f"{ns}ns"


def write_json(value: Json, indent: int = 0) -> str:
    """Return JSON, on one line where it is short; the keys of mappings are strings as they are written."""
    line = _on_one_line(value)
    if len(line) + len(INDENT) * indent <= WIDTH or not isinstance(value, Mapping | list) or not value:
        return line
    inner, outer = INDENT * (indent + 1), INDENT * indent
    if isinstance(value, Mapping):
        lines = [f"{inner}{key}: {write_json(each, indent + 1)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    lines = [inner + write_json(each, indent + 1) for each in value]
    return "[\n" + ",\n".join(lines) + f"\n{outer}]"


def _on_one_line(value: Json) -> str:
    match value:
        case Written():
            return value.text
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() | Decimal():
            return format(value, "f")
        case str():
            return write_text(value)
        case Mapping():
            pairs = ", ".join(f"{key}: {_on_one_line(each)}" for key, each in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return f"[{', '.join(_on_one_line(each) for each in value)}]"
