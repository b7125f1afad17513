"""``spanproof demo``: the shop, its proofs, and whether each got the verdict it should."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from spanproof.api.cli.report_options import ReportTarget, write_reports
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.history import HistoryWriter
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.run.events import ProofFinished, RunEvent
from spanproof.assertions.run.runner import Runner
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile

PROOFS_FOLDER = Path(__file__).resolve().parent.parent / "examples" / "shop" / "proofs"
EXPECTED_FAILURE_MARKER = "# demo: fails"


def run_demo(modules: list[ProofModule], reports: tuple[ReportTarget, ...], console: Console) -> int:
    """Run proofs against a shop of their own; return 0 exactly if every proof got the verdict it should.

    Raises ValueError where a report cannot be written.
    """
    try:
        from spanproof.examples.shop.shop import Shop, ShopError
    except ImportError as error:
        console.print(f"the demo needs its extra packages ({error.name} is missing): pip install 'spanproof[demo]'")
        return 2
    report = TerminalReport(console)
    proofs = [(module, proof) for module in modules for proof in module.proofs]
    surprises: list[str] = []
    with Store.open() as store, Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as receiver:
        console.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")
        try:
            with Shop.start(
                receiver.grpc_address, receiver.http_address, lambda line: console.print(f"  {line}", style="dim")
            ) as shop:
                console.print(f"the shop is open at {shop.base_url}\n", style="dim")
                os.environ["SHOP_URL"] = shop.base_url
                runner = Runner(store, lambda event: tell(event))
                history = HistoryWriter(store, runner.run_settings.run_id, "demo")
                tell = _make_emitter([history, report], surprises)
                runner.run(proofs)
                write_reports(reports, history.document, lambda text: console.out(text, end="", highlight=False))
        except ShopError as error:
            console.print(f"spanproof: the shop did not start: {error}")
            return 4
    for surprise in surprises:
        console.print(f"not as it should be: {surprise}", style="bold red")
    meant = sum(is_expected_to_fail(module.file, proof) for module, proof in proofs)
    if not surprises:
        console.print(
            f"{len(proofs)} proofs got the verdict they should, {meant} of them a failure", style="bold green"
        )
    return 1 if surprises else 0


def is_expected_to_fail(file: ParsedFile, proof: s.Proof) -> bool:
    """Tell whether ``# demo: fails`` stands beside a proof's first line."""
    end = file.text.find("\n", proof.at.start)
    return EXPECTED_FAILURE_MARKER in file.text[proof.at.start : end]


def _make_emitter(listeners: list[Callable[[RunEvent], None]], unexpected: list[str]) -> Callable[[RunEvent], None]:
    def emit(event: RunEvent) -> None:
        for listener in listeners:
            listener(event)
        if isinstance(event, ProofFinished):
            wanted = Outcome.FAIL if is_expected_to_fail(event.file, event.proof) else Outcome.PASS
            if event.outcome is not wanted:
                unexpected.append(f"{event.proof.name}: must {wanted}, got {event.outcome}")

    return emit
