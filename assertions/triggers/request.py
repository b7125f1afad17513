"""Requests of ``when`` statements with the values of their names, ready to send."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec import Struct

from spanproof.assertions.triggers.allowed_targets import AllowedTargets
from spanproof.assertions.triggers.context import DEFAULT_TIMEOUT_S, TriggerFailed
from spanproof.query_lang.check.constants import (
    Bindings,
    JsonValue,
    MissingValue,
    describe_missing,
    evaluate,
    format_constant,
    interpolate,
    to_decimal,
)
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v


class TriggerRequest(Struct, frozen=True):
    """A ``when`` with its bindings.

    File names are relative to `folder`. Without `allowed_targets`, every target is allowed.
    """

    when: s.When
    bindings: Bindings
    folder: Path
    allowed_targets: AllowedTargets | None = None

    def read_target(self, index: int) -> str:
        """Return a target, the text after the kind of request: a URL, an address, a method, a subject."""
        target = self.when.targets[index]
        return interpolate(target, self.bindings) if isinstance(target, s.Text) else target.text

    def read_key(self, option: s.Option) -> str:
        """Return the name that an option sets."""
        return interpolate(option.key, self.bindings) if option.key is not None else ""

    def read_text(self, option: s.Option) -> str:
        """Return the value of an option as text."""
        expression: s.Expression = option.value  # type: ignore[assignment]  # not JSON
        value = evaluate(expression, self.bindings)
        if value is None:
            raise MissingValue(describe_missing(expression, self.bindings, option.kind))
        return format_constant(value)

    def find_text(self, kind: str) -> str | None:
        """Return the value of an option that occurs at most once, or None."""
        option = self.when.option(kind)
        return None if option is None or option.value is None else self.read_text(option)

    def read_headers(self) -> dict[str, str]:
        """Return the headers that the request names."""
        return {self.read_key(each): self.read_text(each) for each in self.when.options if each.kind == "header"}

    def read_body(self) -> tuple[bytes, str] | None:
        """Return the text of ``json`` or ``body`` with its content type, or None without either option."""
        option = self.when.option("json")
        if option is not None:
            return json.dumps(build_json(option.value, self.bindings)).encode(), "application/json"
        text = self.find_text("body")
        return None if text is None else (text.encode(), "text/plain; charset=utf-8")

    def read_timeout_s(self, default_s: float = DEFAULT_TIMEOUT_S) -> float:
        """Return the longest wait for a response, in seconds."""
        option = self.when.option("timeout")
        if option is None:
            return default_s
        return float(to_decimal(evaluate(option.value, self.bindings))) / 1e9  # type: ignore[arg-type]  # an expression, not JSON

    def read_file(self, option: s.Option) -> bytes:
        """Read the file that an option names."""
        path = self.resolve_path(option)
        try:
            return path.read_bytes()
        except OSError as error:
            raise TriggerFailed(f"{path} cannot be read: {error.strerror or error}", option.at) from None

    def resolve_path(self, option: s.Option) -> Path:
        """Return the path of the file that an option names, relative to the folder of the proof."""
        return self.folder / self.read_text(option)


def build_json(node: object, bindings: Bindings) -> JsonValue:
    """Return the JSON value of a body, with names replaced by their values."""
    match node:
        case s.JsonObject():
            return {interpolate(key, bindings): build_json(value, bindings) for key, value in node.pairs}
        case s.JsonArray():
            return [build_json(item, bindings) for item in node.items]
        case s.Text():
            return interpolate(node, bindings)
        case s.Name() if node.text in v.CONSTANTS:
            return v.CONSTANTS[node.text]
        case s.Name() | s.Number() | s.Negative():
            constant = evaluate(node, bindings)
            if constant is None:
                raise MissingValue(describe_missing(node, bindings))
            value = constant.value
            if isinstance(value, str | bool | list | dict) or value is None:
                return value
            return int(value) if value == int(value) else float(value)
        case _:
            raise AssertionError(f"{type(node).__name__} is not JSON")
