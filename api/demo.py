"""``spanproof demo``: the shop, its proofs, and whether each got the verdict it should."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from spanproof.api.reporting import ReportTarget, write_reports
from spanproof.assertions.events import Event, ProofFinished
from spanproof.assertions.history import HistoryWriter
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.runner import Runner
from spanproof.assertions.verdict import Outcome
from spanproof.collector.receiver import Receiver
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.modules import Module
from spanproof.query_lang.parse import ProofFile

PROOFS = Path(__file__).resolve().parent.parent / "examples" / "shop" / "proofs"
FAILS = "# demo: fails"


def run_demo(modules: list[Module], reports: tuple[ReportTarget, ...], console: Console) -> int:
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
                history = HistoryWriter(store, runner.terms.run_id, "demo")
                tell = _watch([history, report], surprises)
                runner.run(proofs)
                write_reports(reports, history.run, lambda text: console.out(text, end="", highlight=False))
        except ShopError as error:
            console.print(f"spanproof: the shop did not start: {error}")
            return 4
    for surprise in surprises:
        console.print(f"not as it should be: {surprise}", style="bold red")
    meant = sum(is_meant_to_fail(module.file, proof) for module, proof in proofs)
    if not surprises:
        console.print(
            f"{len(proofs)} proofs got the verdict they should, {meant} of them a failure", style="bold green"
        )
    return 1 if surprises else 0


def is_meant_to_fail(file: ProofFile, proof: s.Proof) -> bool:
    """Tell whether ``# demo: fails`` stands beside a proof's first line."""
    end = file.text.find("\n", proof.at.start)
    return FAILS in file.text[proof.at.start : end]


def _watch(listeners: list[Callable[[Event], None]], surprises: list[str]) -> Callable[[Event], None]:
    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)
        if isinstance(event, ProofFinished):
            wanted = Outcome.FAIL if is_meant_to_fail(event.file, event.proof) else Outcome.PASS
            if event.outcome is not wanted:
                surprises.append(f"{event.proof.name}: must {wanted}, got {event.outcome}")

    return emit
