"""Responses of triggers, and the parts of them that claims read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from spanproof.assertions.triggers.context import TraceContext
from spanproof.query_lang.check.constants import Constant, JsonValue, MissingValue


class TriggerResponse(Struct, frozen=True):
    """The response to a trigger: a status (of HTTP or gRPC, or an exit code), a text, and the duration."""

    status: int
    body: str
    duration_ns: int

    @property
    def has_failed(self) -> bool:
        """Return whether the status reports a failure."""
        return self.status != 0

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None if it has no such part."""
        match part:
            case "status":
                return Constant(self.status, "number")
            case "duration":
                return Constant(self.duration_ns, "duration")
            case "body":
                return Constant(self.body, "text")
            case "json":
                return _read_json(self.body, keys)
            case _:
                return None


class RepeatedResponses(Struct, frozen=True):
    """The responses of a repeated request."""

    responses: tuple[TriggerResponse, ...]

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Raise MissingValue: a single value would need a single response."""
        raise MissingValue(f"the request was sent {len(self.responses)} times: `response.{part}` is not a single value")


SendRequest: TypeAlias = Callable[[TraceContext], TriggerResponse]


def _read_json(body: str, keys: tuple[str | int, ...]) -> Constant | None:
    """Return the part of a JSON text at the path `keys`, or None if it has no such part."""
    try:
        value: JsonValue = json.loads(body)
    except ValueError:
        raise MissingValue("the response is not JSON") from None
    for key in keys:
        if isinstance(value, dict) and isinstance(key, str):
            if key not in value:
                return None
            value = value[key]
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return Constant(value, "any")
