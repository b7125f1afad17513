"""``spanproof demo``: starts the demo shop, runs its proofs, and compares the verdicts with the expected ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.console import load_modules, make_console, print_diagnostics
from spanproof.api.cli.exits import EXIT_USAGE, exit_with_error
from spanproof.api.cli.report_options import ReportOption, ReportTarget, read_report_targets, write_reports

if TYPE_CHECKING:
    from rich.console import Console

    from spanproof.assertions.run.events import RunEvent
    from spanproof.query_lang.load.modules import ProofModule
    from spanproof.query_lang.syntax import nodes as s
    from spanproof.query_lang.syntax.parser import ParsedFile

PROOFS_FOLDER: Final = Path(__file__).resolve().parents[2] / "examples" / "shop" / "proofs"
EXPECTED_FAILURE_MARKER: Final = "# demo: fails"

app = make_command_app()


@app.command(epilog="Example: spanproof demo --report html=demo.html")
def demo(
    proofs: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Other proofs than those of the shop.")
    ] = None,
    *,
    report: ReportOption = None,
) -> None:
    """Start the demo shop, run its proofs, and stop it."""
    try:
        reports = read_report_targets(report or ())
        modules = load_modules(proofs or [PROOFS_FOLDER])
        if print_diagnostics(modules):
            sys.exit(EXIT_USAGE)
        code = run_demo(modules, reports, make_console())
    except ValueError as error:
        exit_with_error(str(error))
    sys.exit(code)


def run_demo(modules: list[ProofModule], reports: tuple[ReportTarget, ...], console: Console) -> int:
    """Run proofs against a new shop; return 0 if every proof got its expected verdict, otherwise 1.

    Raises ValueError if a report cannot be written.
    """
    from spanproof.assertions.reports.history import HistoryWriter
    from spanproof.assertions.reports.terminal import TerminalReport
    from spanproof.assertions.run.runner import Runner
    from spanproof.collector.receive.receiver import Receiver
    from spanproof.collector.storage.store import Store
    from spanproof.examples.shop.shop import Shop, ShopError

    report = TerminalReport(console, can_rerun=False)  # the shop stops
    proofs = [(module, proof) for module in modules for proof in module.proofs]
    mismatches: list[str] = []
    with Store.open() as store, Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as receiver:
        console.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")
        try:
            with Shop.start(
                receiver.grpc_address, receiver.http_address, lambda line: console.print(f"  {line}", style="dim")
            ) as shop:
                console.print(f"the shop is open at {shop.base_url}\n", style="dim")
                os.environ["SHOP_URL"] = shop.base_url
                runner = Runner(store, lambda event: emit(event))
                history = HistoryWriter(store, runner.run_settings.run_id, "demo")
                emit = _make_emitter([history, report], mismatches)
                runner.run(proofs)
                write_reports(reports, history.document, lambda text: console.out(text, end="", highlight=False))
        except ShopError as error:
            console.print(f"spanproof: the shop did not start: {error}")
            return 4
    for mismatch in mismatches:
        console.print(f"unexpected verdict: {mismatch}", style="bold red")
    expected_failures = sum(is_expected_to_fail(module.file, proof) for module, proof in proofs)
    if not mismatches:
        console.print(
            f"{len(proofs)} proofs got their expected verdict, {expected_failures} of them a failure",
            style="bold green",
        )
    return 1 if mismatches else 0


def is_expected_to_fail(file: ParsedFile, proof: s.Proof) -> bool:
    """Return whether the first line of a proof has the comment ``# demo: fails``."""
    end = file.text.find("\n", proof.at.start)
    return EXPECTED_FAILURE_MARKER in file.text[proof.at.start : end]


def _make_emitter(listeners: list[Callable[[RunEvent], None]], unexpected: list[str]) -> Callable[[RunEvent], None]:
    from spanproof.assertions.findings.verdict import Outcome
    from spanproof.assertions.run.events import ProofFinished

    def emit(event: RunEvent) -> None:
        for listener in listeners:
            listener(event)
        if isinstance(event, ProofFinished):
            expected = Outcome.FAIL if is_expected_to_fail(event.file, event.proof) else Outcome.PASS
            if event.outcome is not expected:
                unexpected.append(f"{event.proof.name}: expected {expected}, got {event.outcome}")

    return emit
