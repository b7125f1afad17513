"""Values that are known before any span is read: literals, variables, the response."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal, DivisionByZero, InvalidOperation
from typing import Any, Protocol, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from spanproof.query_lang.check.readings import Reading
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.check.secrets import Secrets
from spanproof.query_lang.check.types import TypeChecker
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


class Constant(Struct, frozen=True):
    """Value and its kind: durations in nanoseconds, percentages as fractions. Kind ``any`` is a JSON value."""

    value: JsonValue | Decimal
    kind: v.ValueKind


class ReadableResponse(Protocol):
    """Interface of a response: access to its parts."""

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None if it has no such part."""


class Bindings(Struct, frozen=True):
    """Values of the names of a proof. ``responses[None]`` is the latest response.

    Each environment variable that ``env`` reads is added to ``secrets``. ``reading`` is how open evidence is read.
    ``window_ns`` are the lengths of windows in nanoseconds, by the tables of their traces. ``remedies`` say what gives
    a value to the names without one.
    """

    variables: Mapping[str, Constant | None] = field(default_factory=dict)
    responses: Mapping[str | None, ReadableResponse] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    reading: Reading = field(default_factory=Reading)
    window_ns: Mapping[str, int] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)

    def bind(self, let: s.Let, value: Constant | None) -> Bindings:
        """Return bindings in which the name of ``let`` has a value, or is known to have none."""
        name, remedies = let.name.text, self.remedies
        if value is None and let.value is not None and (variable := find_environment_variable(let.value)):
            remedies = {**remedies, name: f"set the environment variable {variable}, or pass --var {name}=…"}
        return replace(self, variables={**self.variables, name: value}, remedies=remedies)

    @property
    def scope(self) -> Scope:
        """Scope with the same names and their types."""
        variables = {name: v.ValueType(value.kind if value else "any") for name, value in self.variables.items()}
        return Scope(variables=variables, requests=frozenset(name for name in self.responses if name))


class MissingValue(Exception):
    """Error for a value that is missing or unusable. The message names it."""


def is_constant(node: s.Expression) -> bool:
    """Return whether `node` can be evaluated without reading spans."""
    return not any(
        isinstance(part, s.SpanSelection | s.CallSelection)
        or (isinstance(part, s.Function) and part.name in (*v.SELECTION_FUNCTIONS, *v.AGGREGATES))
        or (isinstance(part, s.Name) and part.text == "baseline")
        for part in s.walk(node)
    )


def evaluate(node: s.Expression, bindings: Bindings) -> Constant | None:
    """Return the value of a constant expression, or None if it is missing (an unset variable, an absent key)."""
    match node:
        case s.Number():
            kind = TypeChecker().infer(node, Scope()).kind
            return Constant(node.value, kind)
        case s.Text():
            return Constant(interpolate(node, bindings), "text")
        case s.Name():
            if node.text in v.CONSTANTS:
                value = v.CONSTANTS[node.text]
                return Constant(value, "nothing" if value is None else "boolean")
            return bindings.variables.get(node.text)
        case s.Response():
            response = bindings.responses.get(node.step)
            return response.read(node.part, node.keys) if response else None
        case s.Negative():
            inner = evaluate(node.value, bindings)
            return None if inner is None else Constant(-to_decimal(inner), inner.kind)
        case s.AnyOf():
            values = (evaluate(term, bindings) for term in node.terms)
            return next((value for value in values if value is not None and value.value not in ("", None)), None)
        case s.Arithmetic():
            return _evaluate_arithmetic(node, bindings)
        case s.Function():
            return _evaluate_function(node, bindings)
        case _:
            raise AssertionError(f"{type(node).__name__} is not a constant")


def find_environment_variable(node: s.Expression) -> str | None:
    """Return the environment variable that an expression reads, or None if it reads none."""
    for part in s.walk(node):
        if isinstance(part, s.Function) and part.name == "env" and isinstance(part.arguments[0], s.Text):
            return "".join(each for each in part.arguments[0].parts if isinstance(each, str))
    return None


def describe_missing(node: s.Expression, bindings: Bindings, name: str | None = None) -> str:
    """Return the message for an expression without a value, called `name` if it is none itself."""
    if isinstance(node, s.Name):
        name, remedy = node.text, bindings.remedies.get(node.text)
    else:
        variable = find_environment_variable(node)
        remedy = f"set the environment variable {variable}" if variable else None
    message = f"`{name}` has no value" if name else "a value is missing"
    return f"{message}: {remedy}" if remedy else message


def to_decimal(constant: Constant | None) -> Decimal:
    """Return a constant as a number. Raises :class:`MissingValue` if it is missing or not a number."""
    if constant is None:
        raise MissingValue("a value is missing")
    if isinstance(constant.value, bool) or not isinstance(constant.value, int | float | Decimal):
        raise MissingValue(f"{constant.value!r} is not a number")
    return constant.value if isinstance(constant.value, Decimal) else Decimal(repr(constant.value))


def interpolate(node: s.Text, bindings: Bindings, *, keep_unknown: bool = False) -> str:
    """Return a string with its placeholders filled. With `keep_unknown`, an unknown ``{name}`` stays as written."""
    texts = []
    for part in node.parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        value = bindings.variables.get(part.text)
        if value is None and keep_unknown:
            texts.append("{" + part.text + "}")
        elif value is None:
            raise MissingValue(describe_missing(part, bindings))
        else:
            texts.append(format_constant(value))
    return "".join(texts)


def format_constant(constant: Constant) -> str:
    """Return a constant as text, for use in a string."""
    value = constant.value
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return str(int(value)) if value == int(value) else str(value)
    return json.dumps(value)


def encode_attribute_text(value: JsonValue | Decimal) -> str | None:
    """Return a JSON value in the storage format of attributes, so that the two are comparable."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\x01a" + json.dumps([_encode_element(item) for item in value])
    return format_constant(Constant(value, "any"))


def _encode_element(item: JsonValue) -> dict[str, JsonValue]:
    return {"stringValue": item if isinstance(item, str) else json.dumps(item)}


def _evaluate_arithmetic(node: s.Arithmetic, bindings: Bindings) -> Constant | None:
    left, right = evaluate(node.left, bindings), evaluate(node.right, bindings)
    if left is None or right is None:
        return None
    kind = TypeChecker().infer(node, bindings.scope).kind
    a, b = to_decimal(left), to_decimal(right)
    try:
        value = {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__}[node.operator](b)
    except (DivisionByZero, InvalidOperation):
        raise MissingValue("a division by zero") from None
    return Constant(value, kind)


def _evaluate_function(node: s.Function, bindings: Bindings) -> Constant | None:
    argument = evaluate(node.arguments[0], bindings)
    if argument is None:
        return None
    if node.name == "env":
        value = os.environ.get(format_constant(argument))
        if value is None:
            return None
        bindings.secrets.add(value)
        return Constant(value, "text")
    if node.name == "len":
        if not isinstance(argument.value, str | list | dict):
            raise MissingValue(f"{argument.value!r} has no length")
        return Constant(len(argument.value), "number")
    if node.name == "json":
        try:
            part: Any = json.loads(format_constant(argument))
        except ValueError:
            raise MissingValue("`json` received a text that is not JSON") from None
        try:
            for key in node.keys:
                if isinstance(part, str):  # a text is no list of characters
                    return None
                part = part[key]
        except (KeyError, IndexError, TypeError):
            return None
        return None if part is None else Constant(part, "any")
    return Constant(getattr(format_constant(argument), node.name)(), "text")
