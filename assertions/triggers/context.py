"""What all triggers share: the trace they start, how they fail, and what they are answered with."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field

from spanproof.query_lang.constants import Constant, JsonValue, NoValue


class TriggerFailed(Exception):
    """The request could not be carried out; the message says why."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace that a request starts, as W3C ``traceparent`` carries it; ids in hexadecimal."""

    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def traceparent(self) -> str:
        """The header, sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a trigger came back with: a status (HTTP's, or an exit code), a text, and how long it took."""

    status: int
    body: str
    duration_ns: int

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the answer, or None where it has no such part."""
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


def _read_json(body: str, keys: tuple[str | int, ...]) -> Constant | None:
    """Return the part of a JSON text that `keys` lead to, or None where it has no such part."""
    try:
        value: JsonValue = json.loads(body)
    except ValueError:
        raise NoValue("the response is not JSON") from None
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


def first_line(text: str) -> str:
    """Return the first line of a text."""
    return text.splitlines()[0] if text else text
