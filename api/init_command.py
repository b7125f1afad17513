"""``spanproof init``: a first proof of a URL, of what was seen of one request to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spanproof.api.receiving import OtlpGrpc, OtlpHttp
from spanproof.api.shell import console, fail
from spanproof.api.whole_files import write_whole
from spanproof.assertions.events import Event, Waiting
from spanproof.collector.addresses import is_loopback
from spanproof.query_lang.literals import read_duration_ns
from spanproof.query_lang.writing import escape

if TYPE_CHECKING:
    from spanproof.assertions.first_look import FirstLook
    from spanproof.assertions.first_proof import FirstRequest


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
    from spanproof.assertions.first_proof import read_request, write_first_proof

    if output.exists():
        fail(f"{output}: it exists, and stays; --output names another file")
    if not output.parent.is_dir():
        fail(f"{output.parent}: no such folder")
    try:
        request = read_request(url, method, json)
        waits_ns = read_duration_ns(within)
        open_to_others = [address for address in (otlp_grpc, otlp_http) if not is_loopback(address)]
    except ValueError as error:
        fail(str(error))
    if waits_ns <= 0:
        fail("--within is more than 0s")
    if open_to_others:
        fail(f"{open_to_others[0]} can be reached from other machines; a first look is taken on this one")
    look = None if no_send else _look(request, within, otlp_grpc, otlp_http)
    try:
        write_whole(output, write_first_proof(request, look).encode())
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    console().print(f"{output} is written. Change it as you like, and carry it out:\n  spanproof run {output}")


def _look(request: FirstRequest, within: str, otlp_grpc: str, otlp_http: str) -> FirstLook:
    """Send the request while receiving spans, and tell what comes of it."""
    from spanproof.assertions.first_look import look_at
    from spanproof.assertions.reports.terminal import TerminalReport
    from spanproof.assertions.reports.wording import show_short
    from spanproof.assertions.triggers.context import TriggerFailed
    from spanproof.assertions.wording import count
    from spanproof.collector.receiver import Receiver
    from spanproof.collector.store import Store

    said = console()
    terminal = TerminalReport(said)

    def tell(event: Event) -> None:
        if isinstance(event, Waiting):
            terminal(event)

    with Store.open() as store, Receiver(store, otlp_grpc, otlp_http) as receiver:
        said.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")
        try:
            look = look_at(store, request.write(escape(request.base)), within, tell)
        except TriggerFailed as error:
            fail(f"{error}; --no-send writes a proof without asking")
        finally:
            terminal.close()
    said.print(f"{request.method} {request.url} was answered with {look.status} in {show_short(look.took_ns)}")
    if not look.spans:
        said.print(
            f"no span came of it within {within}: services send them where"
            f" OTEL_EXPORTER_OTLP_ENDPOINT=http://{receiver.http_address} says",
            style="yellow",
        )
        return look
    said.print(f"{count(look.spans, 'span')} came of {', '.join(look.services)}")
    for note in (*look.notes, *([f"not all that was awaited has come: {look.missing}"] if look.missing else ())):
        said.print(note, style="dim")
    return look
