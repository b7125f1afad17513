"""The options that say of the services what no span does."""

from __future__ import annotations

from typing import Annotated

import typer

from spanproof.collector.rules import Rules
from spanproof.query_lang.literals import read_duration_ns

Proxies = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        metavar="SERVICE",
        envvar="SPANPROOF_PROXY",
        help="A sidecar: no hop of its own; may be repeated.",
    ),
]
RetryGap = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        envvar="SPANPROOF_MAX_RETRY_GAP",
        help="The longest wait after which a call is another attempt, where no counter tells.",
    ),
]
ClockSkew = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        envvar="SPANPROOF_MAX_CLOCK_SKEW",
        help="How far the clocks of two processes may be apart.",
    ),
]
CircuitMarkers = Annotated[
    list[str] | None,
    typer.Option(
        "--circuit-marker",
        metavar="NAME",
        envvar="SPANPROOF_CIRCUIT_MARKER",
        help="An attribute, event or exception type that an open circuit leaves behind; may be repeated.",
    ),
]


def read_rules(
    proxies: list[str] | None, max_retry_gap: str, max_clock_skew: str, circuit_markers: list[str] | None
) -> Rules:
    """Read what the options say of the services. Raises ValueError, naming the option."""
    limits = {}
    for option, text in (("--max-retry-gap", max_retry_gap), ("--max-clock-skew", max_clock_skew)):
        try:
            limits[option] = read_duration_ns(text)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
        if limits[option] < 0:
            raise ValueError(f"{option}: {text} is negative")
    return Rules(
        tuple(proxies or ()),
        limits["--max-retry-gap"],
        limits["--max-clock-skew"],
        (*Rules().circuit_markers, *(circuit_markers or ())),
    )
