"""Vocabulary of the language: fields of spans and calls, functions, clauses, and their types."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from spanproof.collector.otlp.semantic_conventions import SPAN_KINDS, STATUS_CODES
from spanproof.query_lang.syntax import nodes as s

ValueKind: TypeAlias = Literal[
    "number", "duration", "fraction", "points", "rate", "text", "boolean", "instant", "any", "kind", "status", "nothing"
]
RowKind: TypeAlias = Literal["span", "call", "event", "link"]


class ValueType(Struct, frozen=True):
    """Type of an expression: a kind of value, and whether it yields one value or (``is_many``) a bag of values."""

    kind: ValueKind
    is_many: bool = False

    @property
    def name(self) -> str:
        """Name of the kind in messages."""
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


SPAN_FIELDS: Final[Mapping[str, ValueKind]] = {
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
CALL_FIELDS: Final[Mapping[str, ValueKind]] = {
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
EVENT_FIELDS: Final[Mapping[str, ValueKind]] = {"name": "text", "time": "instant"}
LINK_FIELDS: Final[Mapping[str, ValueKind]] = {"trace_id": "text", "span_id": "text"}
FIELDS: Final[Mapping[RowKind, Mapping[str, ValueKind]]] = {
    "span": SPAN_FIELDS,
    "call": CALL_FIELDS,
    "event": EVENT_FIELDS,
    "link": LINK_FIELDS,
}
# Conditions in [ ] on what belongs to a span, and on spans near it in the tree of its trace.
PARTS: Final = get_args(s.Part)
RELATIVES: Final = get_args(s.Relative)
PICKS: Final = get_args(s.Pick)
# Fields that can change while spans are still arriving. All others are final once the span has arrived.
UNSTABLE_FIELDS: Final = frozenset({"self_time", "depth", "attempt", "attempts", "network"})

# Words that are values of the fields of these kinds.
ENUMERATIONS: Final[Mapping[ValueKind, Mapping[str, int]]] = {"kind": SPAN_KINDS, "status": STATUS_CODES}
CONSTANTS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}

# Functions of a selection and the type of their result: many values, or one.
SELECTION_FUNCTIONS: Final[Mapping[str, ValueType]] = {
    "count": ValueType("number"),
    "duration": ValueType("duration", is_many=True),
    "self_time": ValueType("duration", is_many=True),
    "network": ValueType("duration", is_many=True),
    "lag": ValueType("duration", is_many=True),
    "attempts": ValueType("number", is_many=True),
    "calls": ValueType("number", is_many=True),
    "values": ValueType("any", is_many=True),
    "error_rate": ValueType("fraction"),
    "rate": ValueType("rate"),
    "critical": ValueType("duration", is_many=True),
}
CALL_ONLY_FUNCTIONS: Final = frozenset({"network", "lag", "attempts", "calls"})
TRACE_FUNCTIONS: Final = frozenset({"count", "duration", "error_rate", "rate"})
AGGREGATES: Final = ("min", "max", "avg", "sum", "stddev", "distinct", "p50", "p75", "p90", "p95", "p99", "p")
CONSTANT_FUNCTIONS: Final = ("env", "len", "lower", "upper", "json")
CONDITION_FUNCTIONS: Final = ("exists",)
FUNCTIONS: Final = (*SELECTION_FUNCTIONS, *AGGREGATES, *CONSTANT_FUNCTIONS, *CONDITION_FUNCTIONS)

RETRY_LIMITS: Final[Mapping[str, ValueKind]] = {"attempts": "number", "backoff": "duration"}
RETRY_FLAGS: Final = (
    "backoff grows", "recovered", "exhausted", "evidence counted", "evidence arrivals", "evidence inferred",
)  # fmt: skip
CIRCUIT_LIMITS: Final[Mapping[str, ValueKind]] = {"holds": "duration", "probes": "number"}
RESPONSE_PARTS: Final[Mapping[str, ValueKind]] = {
    "status": "number",
    "headers": "text",
    "body": "text",
    "json": "any",
    "duration": "duration",
}


def read_quantile(function: str) -> str | None:
    """Return the percentage of ``p50`` … ``p99`` as text, or None for other functions."""
    return function[1:] if function in AGGREGATES and function[1:].isdigit() else None


def read_percentage(function: str, arguments: tuple[s.Expression, ...]) -> Decimal:
    """Return the percentage of ``p50`` … ``p99`` or ``p(99.9, …)``."""
    percent = read_quantile(function)
    if percent is not None:
        return Decimal(percent)
    assert isinstance(arguments[0], s.Number)  # noqa: S101 (checked before)
    return arguments[0].value
