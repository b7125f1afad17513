"""Options for the rules that users declare for their services: sidecars, edges, retries, clocks, circuit breakers."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Proxies: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        metavar="SERVICE",
        envvar="SPANPROOF_PROXY",
        help='A sidecar, which is not a hop: its service, or `orders[scope.name == "dapr"]`; may be repeated.',
    ),
]
RetryGap: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        envvar="SPANPROOF_MAX_RETRY_GAP",
        help="The longest wait between two attempts of one logical call, where no counter links them.",
    ),
]
ClockSkew: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        envvar="SPANPROOF_MAX_CLOCK_SKEW",
        help="The largest difference between the clocks of two processes.",
    ),
]
CircuitMarkers: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--circuit-marker",
        metavar="NAME",
        envvar="SPANPROOF_CIRCUIT_MARKER",
        help="An attribute, event or exception type that an open circuit breaker leaves; may be repeated.",
    ),
]
Edges: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--edge",
        metavar="SERVICE",
        envvar="SPANPROOF_EDGE",
        help="A service in front of which something rewrites `traceparent`; may be repeated.",
    ),
]
RetriedCalls: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--retried-call",
        metavar="CALL",
        envvar="SPANPROOF_RETRIED_CALL",
        help="A call such as `orders -> payments` whose attempts are one call where that is possible; may be repeated.",
    ),
]
DistinctCalls: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--distinct-call",
        metavar="CALL",
        envvar="SPANPROOF_DISTINCT_CALL",
        help="A call such as `orders -> payments` whose attempts are separate calls; may be repeated.",
    ),
]
