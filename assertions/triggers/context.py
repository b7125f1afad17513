"""Trace context that triggers send, and the error that they raise."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field

from spanproof.query_lang.syntax.nodes import TextRange

RUN_ID_ATTRIBUTE: Final = "spanproof.run_id"
DEFAULT_TIMEOUT_S: Final = 30.0


class TriggerFailed(Exception):
    """A request failed. The message gives the reason, ``at`` the part of the proof that caused it, if there is one."""

    def __init__(self, message: str, at: TextRange | None = None) -> None:
        super().__init__(message)
        self.at = at


class TraceContext(Struct, frozen=True):
    """The trace that a request starts, as W3C ``traceparent`` carries it; ids in hexadecimal."""

    run_id: str = ""
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def request_id(self) -> str:
        """Unique id of this request: the run id and our span id."""
        return f"{self.run_id}.{self.span_id}"

    @property
    def headers(self) -> dict[str, str]:
        """The context as headers: sampled, with the request id as baggage."""
        return {
            "traceparent": f"00-{self.trace_id}-{self.span_id}-01",
            "baggage": f"{RUN_ID_ATTRIBUTE}={self.request_id}",
        }

    def merge_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` merged with those of the context; baggage is appended to ours."""
        merged = self.headers
        for name, value in headers.items():
            lower = name.lower()
            merged[lower if lower in merged else name] = f"{merged[lower]},{value}" if lower == "baggage" else value
        return merged


def first_line(text: str) -> str:
    """Return the first line of a text."""
    return text.splitlines()[0] if text else text
