"""``spanproof init``: writes a first proof for a URL, from one request to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spanproof.api.cli.atomic_files import write_atomically
from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.console import make_console
from spanproof.api.cli.exits import exit_with_error
from spanproof.api.cli.receiver_options import OtlpGrpc, OtlpHttp

if TYPE_CHECKING:
    from spanproof.assertions.run.events import RunEvent
    from spanproof.assertions.run.exploration import Exploration
    from spanproof.assertions.run.generated_proof import ExploredRequest

app = make_command_app()


@app.command(
    short_help="Send a request, and write a first proof from its spans.",
    epilog="Example: spanproof init http://127.0.0.1:8080/orders/42",
)
def init(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The URL to request, such as http://127.0.0.1:8080/orders.")
    ],
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; an existing file is not replaced."),
    ] = Path("first.proof"),
    method: Annotated[
        str | None,
        typer.Option(
            "--method", "-X", metavar="METHOD", help="The HTTP method; the default is GET, or POST with --json."
        ),
    ] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="TEXT", help="The JSON body to send.")] = None,
    within: Annotated[
        str, typer.Option("--within", metavar="DURATION", help="The longest time to wait for spans.")
    ] = "15s",
    no_send: Annotated[
        bool, typer.Option("--no-send", help="Send nothing; the proof only expects status 200.")
    ] = False,
    otlp_grpc: OtlpGrpc = "127.0.0.1:4317",
    otlp_http: OtlpHttp = "127.0.0.1:4318",
) -> None:
    """Send a request, receive its spans, and write a proof of what was observed.

    Exits with code 3 if no span arrived; the proof then covers the response only.
    """
    from spanproof.assertions.findings.verdict import EXIT_CODES, Outcome
    from spanproof.assertions.run.generated_proof import read_request, write_generated_proof
    from spanproof.collector.receive.addresses import is_loopback
    from spanproof.query_lang.syntax.literals import read_duration_ns

    if output.exists():
        exit_with_error(f"{output}: the file exists; --output names another one")
    if not output.parent.is_dir():
        exit_with_error(f"{output.parent}: no such folder")
    try:
        request = read_request(url, method, json)
        waits_ns = read_duration_ns(within)
        open_to_others = [address for address in (otlp_grpc, otlp_http) if not is_loopback(address)]
    except ValueError as error:
        exit_with_error(str(error))
    if waits_ns <= 0:
        exit_with_error("--within must be more than 0s")
    if open_to_others:
        exit_with_error(f"{open_to_others[0]} can be reached from other machines; init accepts only loopback addresses")
    exploration = None if no_send else _explore(request, within, otlp_grpc, otlp_http)
    try:
        write_atomically(output, write_generated_proof(request, exploration).encode())
    except OSError as error:
        exit_with_error(f"{output}: {error.strerror}")
    make_console().print(f"{output} is written. Edit it, and run it:\n  spanproof run {output}")
    if exploration is not None and not exploration.span_count:
        sys.exit(EXIT_CODES[Outcome.INCONCLUSIVE])


def _explore(request: ExploredRequest, within: str, otlp_grpc: str, otlp_http: str) -> Exploration:
    """Send the request while receiving spans, and print what was observed."""
    from spanproof.assertions.explain.text_formatting import format_count, format_short_duration
    from spanproof.assertions.reports.terminal import TerminalReport
    from spanproof.assertions.run.events import WaitingForSpans
    from spanproof.assertions.run.exploration import explore_request
    from spanproof.assertions.triggers.context import TriggerFailed
    from spanproof.collector.receive.receiver import Receiver
    from spanproof.collector.storage.store import Store
    from spanproof.query_lang.syntax.printer import escape_string

    console = make_console()
    terminal = TerminalReport(console)

    def emit(event: RunEvent) -> None:
        if isinstance(event, WaitingForSpans):
            terminal(event)

    with Store.open() as store, Receiver(store, otlp_grpc, otlp_http) as receiver:
        console.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")
        try:
            exploration = explore_request(store, request.write_when(escape_string(request.base)), within, emit)
        except TriggerFailed as error:
            exit_with_error(f"{error}; --no-send writes a proof without a request")
        finally:
            terminal.close()
    took = format_short_duration(exploration.duration_ns)
    console.print(f"{request.method} {request.url} was answered with {exploration.status} in {took}")
    if not exploration.span_count:
        console.print(
            f"no span arrived within {within}: start the services with"
            f" OTEL_EXPORTER_OTLP_ENDPOINT=http://{receiver.http_address} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf,"
            f" or with http://{receiver.grpc_address} and grpc",
            style="yellow",
        )
        return exploration
    console.print(f"{format_count(exploration.span_count, 'span')} arrived from {', '.join(exploration.services)}")
    missing = [f"spans are missing: {exploration.missing}"] if exploration.missing else []
    for note in (*exploration.notes, *missing):
        console.print(note, style="dim")
    return exploration
