"""Faults that a request can inject, and their propagation.

The gateway reads them from the header `x-fault` and propagates them as W3C baggage, so that they affect only the
services that handle the request.
"""

import re
from dataclasses import dataclass

from opentelemetry import baggage, context

HEADER = "x-fault"
BAGGAGE_KEY = "shop.fault"
MAX_DELAY_NS = 60_000_000_000

KNOWN = (
    "bank=503",
    "bank=down",
    "bank=flaky:N",
    "bank=slow:DURATION",
    "inventory=legacy",
    "inventory=slow:DURATION",
    "notifications=off",
)
UNITS_NS = {"ms": 1_000_000, "s": 1_000_000_000}


class UnknownFaultError(ValueError):
    """The text names a fault that the shop does not have."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: the affected service and the kind of failure."""

    target: str
    mode: str
    times: int = 0
    delay_ns: int = 0


def parse(text: str) -> dict[str, Fault]:
    """Parse `target=mode[:argument], …`, with at most one fault per target. Raises UnknownFaultError."""
    faults: dict[str, Fault] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        fault = _parse_one(item)
        if fault.target in faults:
            raise UnknownFaultError(f"two faults for `{fault.target}`: a request can carry only one")
        faults[fault.target] = fault
    return faults


def _parse_one(item: str) -> Fault:
    target, _, rest = item.partition("=")
    mode, _, argument = rest.partition(":")
    if ":" not in item and item in KNOWN:
        return Fault(target, mode)
    if f"{target}={mode}:N" in KNOWN and re.fullmatch(r"[0-9]{1,3}", argument):
        return Fault(target, mode, times=int(argument))
    if f"{target}={mode}:DURATION" in KNOWN and (match := re.fullmatch(r"([0-9]{1,5})(ms|s)", argument)):
        delay_ns = int(match[1]) * UNITS_NS[match[2]]
        if delay_ns <= MAX_DELAY_NS:
            return Fault(target, mode, delay_ns=delay_ns)
    raise UnknownFaultError(f"unknown fault `{item}`; known: {', '.join(KNOWN)}")


def propagate(text: str) -> None:
    """Check the faults and add them to the baggage of the current request."""
    if parse(text):
        context.attach(baggage.set_baggage(BAGGAGE_KEY, text))


def find(target: str) -> Fault | None:
    """Return the fault of the current request for `target`, or None."""
    return parse(str(baggage.get_baggage(BAGGAGE_KEY) or "")).get(target)


def is_active(target: str, mode: str) -> bool:
    """Return whether the current request has the fault `mode` for `target`."""
    fault = find(target)
    return fault is not None and fault.mode == mode
