"""``spanproof init``: a first proof of a URL, of what was seen of one request to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spanproof.api.cli.atomic_files import write_atomically
from spanproof.api.cli.console import exit_with_error, make_console
from spanproof.api.cli.receiver_options import OtlpGrpc, OtlpHttp
from spanproof.assertions.run.events import RunEvent, WaitingForSpans
from spanproof.collector.receive.addresses import is_loopback
from spanproof.query_lang.syntax.literals import read_duration_ns
from spanproof.query_lang.syntax.printer import escape_string

if TYPE_CHECKING:
    from spanproof.assertions.run.exploration import Exploration
    from spanproof.assertions.run.generated_proof import ExploredRequest


def init(
    url: Annotated[str, typer.Argument(metavar="URL", help="What to ask, such as http://127.0.0.1:8080/orders.")],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write; a file that is there stays.")
    ] = Path("first.proof"),
    method: Annotated[
        str | None, typer.Option("--method", "-X", metavar="METHOD", help="How to ask; GET, or POST with --json.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="TEXT", help="What to send.")] = None,
    within: Annotated[
        str, typer.Option("--within", metavar="DURATION", help="How long to wait for spans, at most.")
    ] = "15s",
    no_send: Annotated[
        bool, typer.Option("--no-send", help="Send nothing: expect no more than that it is answered with 200.")
    ] = False,
    otlp_grpc: OtlpGrpc = "127.0.0.1:4317",
    otlp_http: OtlpHttp = "127.0.0.1:4318",
) -> None:
    """Send a request, receive its spans, and write a first proof of what was seen."""
    from spanproof.assertions.run.generated_proof import read_request, write_generated_proof

    if output.exists():
        exit_with_error(f"{output}: it exists, and stays; --output names another file")
    if not output.parent.is_dir():
        exit_with_error(f"{output.parent}: no such folder")
    try:
        request = read_request(url, method, json)
        waits_ns = read_duration_ns(within)
        open_to_others = [address for address in (otlp_grpc, otlp_http) if not is_loopback(address)]
    except ValueError as error:
        exit_with_error(str(error))
    if waits_ns <= 0:
        exit_with_error("--within is more than 0s")
    if open_to_others:
        exit_with_error(f"{open_to_others[0]} can be reached from other machines; a first look is taken on this one")
    look = None if no_send else _explore(request, within, otlp_grpc, otlp_http)
    try:
        write_atomically(output, write_generated_proof(request, look).encode())
    except OSError as error:
        exit_with_error(f"{output}: {error.strerror}")
    make_console().print(f"{output} is written. Change it as you like, and carry it out:\n  spanproof run {output}")


def _explore(request: ExploredRequest, within: str, otlp_grpc: str, otlp_http: str) -> Exploration:
    """Send the request while receiving spans, and tell what comes of it."""
    from spanproof.assertions.explain.text_formatting import format_count, format_short_duration
    from spanproof.assertions.reports.terminal import TerminalReport
    from spanproof.assertions.run.exploration import explore_request
    from spanproof.assertions.triggers.context import TriggerFailed
    from spanproof.collector.receive.receiver import Receiver
    from spanproof.collector.storage.store import Store

    said = make_console()
    terminal = TerminalReport(said)

    def tell(event: RunEvent) -> None:
        if isinstance(event, WaitingForSpans):
            terminal(event)

    with Store.open() as store, Receiver(store, otlp_grpc, otlp_http) as receiver:
        said.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")
        try:
            look = explore_request(store, request.write_when(escape_string(request.base)), within, tell)
        except TriggerFailed as error:
            exit_with_error(f"{error}; --no-send writes a proof without asking")
        finally:
            terminal.close()
    said.print(
        f"{request.method} {request.url} was answered with {look.status} in {format_short_duration(look.duration_ns)}"
    )
    if not look.span_count:
        said.print(
            f"no span came of it within {within}: services send them where"
            f" OTEL_EXPORTER_OTLP_ENDPOINT=http://{receiver.http_address} says",
            style="yellow",
        )
        return look
    said.print(f"{format_count(look.span_count, 'span')} came of {', '.join(look.services)}")
    for note in (*look.notes, *([f"not all that was awaited has come: {look.missing}"] if look.missing else ())):
        said.print(note, style="dim")
    return look
