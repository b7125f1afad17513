"""``spanproof serve``: receives and keeps spans, and serves the HTTP API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from spanproof.api.cli.command_app import Database, add_option_group, make_command_app
from spanproof.api.cli.exits import exit_with_error
from spanproof.api.cli.receiver_options import ReceiverOptionGroup
from spanproof.api.cli.rule_options import (
    CircuitMarkers,
    ClockSkew,
    DistinctCalls,
    Edges,
    Proxies,
    RetriedCalls,
    RetryGap,
)
from spanproof.api.library_imports import import_libraries

if TYPE_CHECKING:
    from spanproof.collector.traces.retention import RetentionLimits

KeepFor: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        envvar="SPANPROOF_KEEP_FOR",
        help="Delete traces that received no span for this long, such as 7d; the default keeps them for ever.",
    ),
]
KeepBelow: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        envvar="SPANPROOF_KEEP_BELOW",
        help="Delete the oldest traces before the file and its log exceed this size, such as 10GB.",
    ),
]
Memory: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        envvar="SPANPROOF_MEMORY",
        help="Memory limit of the database; larger operations use temporary files beside it.",
    ),
]
MIN_MEMORY_BYTES: Final = 128 * 10**6
_SIZE_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B")
_UNIT_FACTORS = {None: 1} | {
    f"{letter}{i}": base**power for i, base in (("", 1000), ("i", 1024)) for power, letter in enumerate("kMGT", 1)
}

app = make_command_app()


@app.command(
    short_help="Receive and keep spans, and serve the HTTP API.", epilog="Example: spanproof serve --db spans.duckdb"
)
@add_option_group("receiver_group", ReceiverOptionGroup)
def serve(
    *,
    proxy: Proxies = None,
    max_retry_gap: RetryGap = "60s",
    max_clock_skew: ClockSkew = "10ms",
    circuit_marker: CircuitMarkers = None,
    edge: Edges = None,
    retried_call: RetriedCalls = None,
    distinct_call: DistinctCalls = None,
    db: Database = "spanproof.duckdb",
    keep_for: KeepFor = None,
    keep_below: KeepBelow = None,
    memory: Memory = "512MB",
    api: Annotated[
        str,
        typer.Option("--api", metavar="HOST:PORT", envvar="SPANPROOF_API", help="HTTP API; port 0 takes a free one."),
    ] = "127.0.0.1:8321",
    allow_target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Allow proofs that are submitted over the API to send requests to this host; may be repeated.",
        ),
    ] = None,
    proofs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            envvar="SPANPROOF_PROOFS",
            help="Proof files that runs and gates over the API may refer to by name.",
        ),
    ] = None,
    trace_self: Annotated[
        str | None,
        typer.Option(
            metavar="URL|env",
            help="Export spans of its own work to this OTLP/gRPC endpoint, or to OTEL_EXPORTER_OTLP_ENDPOINT (env).",
        ),
    ] = None,
    receiver_group: ReceiverOptionGroup,
) -> None:
    """Receive and keep spans, and serve the HTTP API, until stopped."""
    import_libraries()
    from spanproof.api.server.self_tracing_endpoint import read_trace_self_endpoint
    from spanproof.api.server.server import Server
    from spanproof.assertions.run.settings import read_rules
    from spanproof.assertions.triggers.allowed_targets import read_allowed_targets

    try:
        server = Server(
            db,
            receiver_group.otlp_grpc,
            receiver_group.otlp_http,
            api,
            receiver_group.make_receiver_options(api),
            read_rules(
                proxy or (),
                max_retry_gap,
                max_clock_skew,
                circuit_marker or (),
                edge or (),
                retried_call or (),
                distinct_call or (),
            ),
            read_retention_limits(keep_for, keep_below, db),
            read_allowed_targets(allow_target or []),
            read_memory_bytes(memory),
            None if trace_self is None else read_trace_self_endpoint(trace_self),
            proofs,
        )
    except ValueError as error:
        exit_with_error(str(error))
    if proofs is not None and not proofs.is_dir():
        exit_with_error(f"--proofs: {proofs}: no such folder")
    server.run(lambda line: typer.echo(line))


def read_retention_limits(keep_for: str | None, keep_below: str | None, db: str) -> RetentionLimits:
    """Return the limits that the options set. Raises ValueError, which names the option."""
    from spanproof.collector.traces.retention import MIN_SIZE_BYTES, RetentionLimits
    from spanproof.query_lang.syntax.literals import read_duration_ns

    keep_for_ns = size = None
    if keep_for is not None:
        try:
            keep_for_ns = read_duration_ns(keep_for)
        except ValueError as error:
            raise ValueError(f"--keep-for: {error}") from None
        if keep_for_ns <= 0:
            raise ValueError(f"--keep-for: {keep_for} keeps nothing")
    if keep_below is not None:
        size = _read_size("--keep-below", keep_below)
        if size < MIN_SIZE_BYTES:
            raise ValueError(f"--keep-below: {keep_below} is too small, the minimum is {MIN_SIZE_BYTES // 2**20}MiB")
        if db == ":memory:":
            raise ValueError("--keep-below needs a file; a store in memory has no size limit")
    return RetentionLimits(keep_for_ns, size)


def read_memory_bytes(text: str) -> int:
    """Return the memory limit of the database in bytes. Raises ValueError, which names the option."""
    size = _read_size("--memory", text)
    if size < MIN_MEMORY_BYTES:
        raise ValueError(f"--memory: {text} is too small, the minimum is {MIN_MEMORY_BYTES // 10**6}MB")
    return size


def _read_size(option: str, text: str) -> int:
    found = _SIZE_PATTERN.fullmatch(text)
    if not found:
        raise ValueError(f"{option}: {text!r} is not a size; write one such as 500MB, 10GB or 8GiB")
    return int(float(found[1]) * _UNIT_FACTORS[found[2]])
