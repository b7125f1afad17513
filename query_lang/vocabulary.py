"""The words of the language: fields of spans and calls, functions, clauses, and their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from spanproof.collector.semconv import SPAN_KINDS, STATUS_CODES

Kind: TypeAlias = Literal[
    "number", "duration", "fraction", "points", "rate", "text", "boolean", "instant", "any", "kind", "status", "nothing"
]
Row: TypeAlias = Literal["span", "call", "event", "link"]


@dataclass(frozen=True, slots=True)
class Type:
    """What an expression yields: a kind of value, one or (``many``) a bag of them."""

    kind: Kind
    many: bool = False

    @property
    def name(self) -> str:
        """The kind as messages call it."""
        return {
            "fraction": "a fraction (such as 1%)",
            "points": "a difference in percentage points",
            "rate": "a rate (such as 20/s)",
            "instant": "a point in time",
            "any": "a value",
            "kind": "a span kind",
            "status": "a status",
            "boolean": "a condition",
            "text": "a text",
            "nothing": "nothing",
        }.get(self.kind, f"a {self.kind}")


SPAN_FIELDS: Final[Mapping[str, Kind]] = {
    "service": "text",
    "name": "text",
    "kind": "kind",
    "status": "status",
    "status_message": "text",
    "duration": "duration",
    "self_time": "duration",
    "start": "instant",
    "end": "instant",
    "trace_id": "text",
    "span_id": "text",
    "parent_id": "text",
    "depth": "number",
    "root": "boolean",
    "error": "boolean",
}
CALL_FIELDS: Final[Mapping[str, Kind]] = {
    "caller": "text",
    "callee": "text",
    "operation": "text",
    "duration": "duration",
    "network": "duration",
    "lag": "duration",
    "status": "status",
    "error": "boolean",
    "attempt": "number",
    "attempts": "number",
    "protocol": "text",
    "async": "boolean",
    "start": "instant",
    "end": "instant",
    "trace_id": "text",
}
EVENT_FIELDS: Final[Mapping[str, Kind]] = {"name": "text", "time": "instant"}
LINK_FIELDS: Final[Mapping[str, Kind]] = {"trace_id": "text", "span_id": "text"}
FIELDS: Final[Mapping[Row, Mapping[str, Kind]]] = {
    "span": SPAN_FIELDS,
    "call": CALL_FIELDS,
    "event": EVENT_FIELDS,
    "link": LINK_FIELDS,
}
# These can change while spans are still to come; all others stand once the span is here.
UNSETTLED_FIELDS: Final = frozenset({"self_time", "depth", "attempt", "attempts", "network"})

# Words that stand for values beside these kinds of field.
ENUMERATIONS: Final[Mapping[Kind, Mapping[str, int]]] = {"kind": SPAN_KINDS, "status": STATUS_CODES}
CONSTANTS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}

# Functions of a selection, and what they yield for it: many values, or one.
SELECTION_FUNCTIONS: Final[Mapping[str, Type]] = {
    "count": Type("number"),
    "duration": Type("duration", many=True),
    "self_time": Type("duration", many=True),
    "network": Type("duration", many=True),
    "lag": Type("duration", many=True),
    "attempts": Type("number", many=True),
    "values": Type("any", many=True),
    "error_rate": Type("fraction"),
    "rate": Type("rate"),
    "critical": Type("duration", many=True),
}
NEEDS_CALL: Final = frozenset({"network", "lag", "attempts"})
TAKES_TRACES: Final = frozenset({"count", "duration", "error_rate", "rate"})
AGGREGATES: Final = ("min", "max", "avg", "sum", "stddev", "distinct", "p50", "p75", "p90", "p95", "p99", "p")
PLAIN_FUNCTIONS: Final = ("env", "len", "lower", "upper", "json")
CONDITION_FUNCTIONS: Final = ("exists",)
FUNCTIONS: Final = (*SELECTION_FUNCTIONS, *AGGREGATES, *PLAIN_FUNCTIONS, *CONDITION_FUNCTIONS)

RETRY_LIMITS: Final[Mapping[str, Kind]] = {"attempts": "number", "backoff": "duration"}
RETRY_FLAGS: Final = ("backoff grows", "recovered", "exhausted")
CIRCUIT_LIMITS: Final[Mapping[str, Kind]] = {"holds": "duration", "probes": "number"}
RESPONSE_PARTS: Final[Mapping[str, Kind]] = {
    "status": "number",
    "headers": "text",
    "body": "text",
    "json": "any",
    "duration": "duration",
}


def quantile(function: str) -> str | None:
    """Return the percentage of ``p50`` … ``p99`` as text, or None for other functions."""
    return function[1:] if function in AGGREGATES and function[1:].isdigit() else None
