"""Data types of case files: spans, traces, assertions, scenarios."""

from __future__ import annotations

from msgspec import Struct, field

from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.query_lang.check.constants import JsonValue


class CaseError(Exception):
    """An invalid case file; the message begins with the line number."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")


class CaseEvent(Struct, frozen=True):
    """A span event: ``event "name" at 3ms { … }``."""

    name: str
    at_ns: int
    attributes: dict[str, JsonValue]


class CaseSpan(Struct, frozen=True):
    """One span line; ``parent`` is the index of its parent in the same trace."""

    service: str
    name: str
    kind: int
    start_ns: int
    end_ns: int | None  # None: the span has not ended
    parent: int | None
    orphan: bool = False
    shared: bool = False  # a server span that uses the span id and the parent of the client span above it
    status: int = 0
    status_message: str = ""
    attributes: dict[str, JsonValue] = field(default_factory=dict)
    resource: dict[str, JsonValue] = field(default_factory=dict)
    scope: dict[str, JsonValue] = field(default_factory=dict)  # name, version and attributes
    events: tuple[CaseEvent, ...] = ()
    links: tuple[str, ...] = ()
    label: str | None = None


class CaseTrace(Struct, frozen=True):
    """A trace and its ``copies``, each ``interval_ns`` later than the one before."""

    name: str
    spans: tuple[CaseSpan, ...]
    unsettled: bool = False
    copies: int = 1
    interval_ns: int = 0
    baseline: bool = False


class CaseAssertion(Struct, frozen=True):
    """A claim and its expected verdict; the ``outcome`` of an ``invalid`` claim is ``invalid``."""

    claim: str
    line: int
    outcome: str
    expected_texts: tuple[str, ...] = ()
    expected_witness: tuple[str, ...] | None = None


class Scenario(Struct, frozen=True):
    """The assertions since the last ``clear``, each with the traces above it, and the service rules."""

    assertions: tuple[tuple[tuple[CaseTrace, ...], CaseAssertion], ...]
    rules: ServiceRules
