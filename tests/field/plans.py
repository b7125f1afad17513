"""Fault plans: what happens at the first, second, … arrival, and what web is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# A fault is a status ("503"), or one of:
#   refused    nothing listens; the next fault is that of the next connection
#   reset      the request is read, then the connection is reset
#   slow       200 after 250 ms; slow-503 likewise
#   hang       nothing for 1.2 s, longer than any client waits; then 200
#   truncated  200 with half of the body, then the end of the connection
#   redirect   302 to another path, which is answered with 200
# The last fault of a list repeats.
HANG_S: Final = 1.2
SLOW_S: Final = 0.25

HTTP, GRPC, QUEUE = "http", "grpc", "queue"


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of each item of inventory, those of backup, and the shape of web's work.

    A step of `steps` is a request to web, or a pause in seconds.
    """

    name: str
    faults: Mapping[str, tuple[str, ...]]
    backup: tuple[str, ...] = ("200",)
    shape: str = "single"
    steps: tuple[str | float, ...] = ("request",)
    protocols: frozenset[str] = field(default=frozenset({HTTP}))


def _plan(name: str, *faults: str, protocols: str = "http grpc queue") -> Plan:
    return Plan(name, {"1": faults}, protocols=frozenset(protocols.split()))


_BOTH = frozenset({HTTP, GRPC})

PLANS: Final = {
    plan.name: plan
    for plan in (
        _plan("ok", "200"),
        _plan("503-once", "503", "200"),
        _plan("503-twice", "503", "503", "200"),
        _plan("503-always", "503"),
        _plan("refused-once", "refused", "200", protocols="http"),
        _plan("refused-always", "refused", protocols="http"),
        _plan("reset-once", "reset", "200", protocols="http"),
        _plan("slow", "slow", protocols="http grpc"),
        _plan("hang-once", "hang", "200", protocols="http grpc"),
        _plan("hang-always", "hang", protocols="http grpc"),
        _plan("404", "404", protocols="http grpc"),
        _plan("409", "409", protocols="http grpc"),
        _plan("429-once", "429", "200", protocols="http grpc"),
        _plan("truncated-once", "truncated", "200", protocols="http"),
        _plan("redirect", "redirect", protocols="http"),
        Plan("two-things", {"1": ("503",), "2": ("200",)}, shape="two", protocols=_BOTH),
        Plan("two-successes", {"1": ("200",), "2": ("200",)}, shape="two", protocols=_BOTH),
        Plan("fan-out", {"1": ("slow",)}, shape="parallel", protocols=_BOTH),
        Plan("fan-out-fails", {"1": ("slow-503", "slow-503", "200")}, shape="parallel", protocols=_BOTH),
        Plan("fallback", {"1": ("503",)}, shape="fallback"),
        Plan("fallback-fails", {"1": ("503",)}, ("503",), shape="fallback"),
        Plan("fallback-hang", {"1": ("hang",)}, shape="fallback"),
        Plan(
            "outage",
            {"1": ("503", "503", "503", "200")},
            steps=("request", "request", "request", "request", "request", 0.9, "request", "request"),
            protocols=_BOTH,
        ),
    )
}
