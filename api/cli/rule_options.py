"""The options that say of the services what no span does."""

from __future__ import annotations

from typing import Annotated

import typer

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
