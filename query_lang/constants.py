"""Values that are known before any span is looked at: literals, variables, the response."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, DivisionByZero, InvalidOperation
from typing import Protocol, TypeAlias

from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.secrecy import Secrets
from spanproof.query_lang.types import Scope, Types

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


@dataclass(frozen=True, slots=True)
class Constant:
    """A value and its kind: durations are nanoseconds, percentages fractions, ``any`` is a JSON value."""

    value: JsonValue | Decimal
    kind: v.Kind


class ResponseParts(Protocol):
    """What a response can be asked for."""

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None where it has no such part."""


@dataclass(frozen=True, slots=True)
class Bindings:
    """The values behind the names of a proof. ``responses[None]`` is the latest response.

    What ``env`` is asked for becomes one of the ``secrets``.
    """

    variables: Mapping[str, Constant | None] = field(default_factory=dict)
    responses: Mapping[str | None, ResponseParts] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets, compare=False)

    @property
    def scope(self) -> Scope:
        """The same names with their types."""
        variables = {name: v.Type(value.kind if value else "any") for name, value in self.variables.items()}
        return Scope(variables=variables, requests=frozenset(name for name in self.responses if name))


class NoValue(Exception):
    """A name has no value, so what needs it cannot be carried out; the message says which."""


def is_constant(node: s.Expression) -> bool:
    """Tell whether no span has to be looked at for `node`."""
    return not any(
        isinstance(part, s.Target | s.Call)
        or (isinstance(part, s.Function) and part.name in (*v.SELECTION_FUNCTIONS, *v.AGGREGATES))
        or (isinstance(part, s.Name) and part.text == "baseline")
        for part in s.walk(node)
    )


def evaluate(node: s.Expression, bindings: Bindings) -> Constant | None:
    """Return the value of a constant expression; None where it is missing (an unset variable, a key not there)."""
    match node:
        case s.Number():
            kind = Types().of(node, Scope()).kind
            return Constant(node.value, kind)
        case s.Text():
            return Constant(fill(node, bindings), "text")
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
            return None if inner is None else Constant(-number(inner), inner.kind)
        case s.AnyOf():
            values = (evaluate(term, bindings) for term in node.terms)
            return next((value for value in values if value is not None and value.value not in ("", None)), None)
        case s.Arithmetic():
            return _calculate(node, bindings)
        case s.Function():
            return _apply(node, bindings)
        case _:
            raise AssertionError(f"{type(node).__name__} is no constant")


def number(constant: Constant | None) -> Decimal:
    """Return a constant as a number. Raises :class:`NoValue` where it is missing or none."""
    if constant is None:
        raise NoValue("a value is missing")
    if isinstance(constant.value, bool) or not isinstance(constant.value, int | float | Decimal):
        raise NoValue(f"{constant.value!r} is not a number")
    return constant.value if isinstance(constant.value, Decimal) else Decimal(repr(constant.value))


def fill(node: s.Text, bindings: Bindings, *, braces: bool = False) -> str:
    """Return a string with its names put in; with `braces` an unknown name keeps its braces."""
    filled = []
    for part in node.parts:
        if isinstance(part, str):
            filled.append(part)
            continue
        value = bindings.variables.get(part.text)
        if value is None and braces:
            filled.append("{" + part.text + "}")
        elif value is None:
            raise NoValue(f"`{part.text}` has no value")
        else:
            filled.append(as_text(value))
    return "".join(filled)


def as_text(constant: Constant) -> str:
    """Return a constant as it is written into a string."""
    value = constant.value
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return str(int(value)) if value == int(value) else str(value)
    return json.dumps(value)


def encode(value: JsonValue | Decimal) -> str | None:
    """Return a JSON value in the form in which attributes are stored, so that both compare alike."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\x01a" + json.dumps([_any_value(item) for item in value])
    return as_text(Constant(value, "any"))


def _any_value(item: JsonValue) -> dict[str, JsonValue]:
    return {"stringValue": item if isinstance(item, str) else json.dumps(item)}


def _calculate(node: s.Arithmetic, bindings: Bindings) -> Constant | None:
    left, right = evaluate(node.left, bindings), evaluate(node.right, bindings)
    if left is None or right is None:
        return None
    kind = Types().of(node, bindings.scope).kind
    a, b = number(left), number(right)
    try:
        value = {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__}[node.operator](b)
    except (DivisionByZero, InvalidOperation):
        raise NoValue("a division by zero") from None
    return Constant(value, kind)


def _apply(node: s.Function, bindings: Bindings) -> Constant | None:
    argument = evaluate(node.arguments[0], bindings)
    if argument is None:
        return None
    if node.name == "env":
        value = os.environ.get(as_text(argument))
        if value is None:
            return None
        bindings.secrets.add(value)
        return Constant(value, "text")
    if node.name == "len":
        if not isinstance(argument.value, str | list | dict):
            raise NoValue(f"{argument.value!r} has no length")
        return Constant(len(argument.value), "number")
    if node.name == "json":
        try:
            return Constant(json.loads(as_text(argument)), "any")
        except ValueError:
            raise NoValue("`json` was given a text that is not JSON") from None
    return Constant(getattr(as_text(argument), node.name)(), "text")
