"""What all triggers share: the trace they start, how they fail, and what they are answered with."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from spanproof.query_lang.constants import Constant, JsonValue, NoValue
from spanproof.query_lang.syntax import Source

RUN_ID: Final = "spanproof.run_id"
TIMEOUT_S: Final = 30.0


class TriggerFailed(Exception):
    """The request could not be carried out; the message says why, ``at`` what in the proof is to blame, if anything."""

    def __init__(self, message: str, at: Source | None = None) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace that a request starts, as W3C ``traceparent`` carries it; ids in hexadecimal."""

    run_id: str = ""
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def request_id(self) -> str:
        """What tells this request from all others: the run's id, and our span's."""
        return f"{self.run_id}.{self.span_id}"

    @property
    def headers(self) -> dict[str, str]:
        """The context as headers: sampled, with the request's id as baggage."""
        return {"traceparent": f"00-{self.trace_id}-{self.span_id}-01", "baggage": f"{RUN_ID}={self.request_id}"}

    def join(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers with those of the context among them; baggage is joined to ours."""
        joined = self.headers
        for name, value in headers.items():
            lower = name.lower()
            joined[lower if lower in joined else name] = f"{joined[lower]},{value}" if lower == "baggage" else value
        return joined


@dataclass(frozen=True, slots=True)
class Answer:
    """What a trigger came back with: a status (HTTP's, gRPC's, or an exit code), a text, and how long it took."""

    status: int
    body: str
    duration_ns: int

    @property
    def has_failed(self) -> bool:
        """The request was not done, as the status has it."""
        return self.status != 0

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


Send: TypeAlias = Callable[[TraceContext], Answer]


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
