"""``spanproof run``: a receiver of its own, the proofs, and what they make the exit code."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from spanproof.assertions.events import Event
from spanproof.assertions.history import HistoryWriter
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.runner import Runner
from spanproof.assertions.verdict import EXIT_CODES, Outcome, worst
from spanproof.collector.options import Options
from spanproof.collector.receiver import Receiver
from spanproof.collector.rules import Rules, declare_rules
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.modules import Module


def run_proofs(
    proofs: list[tuple[Module, s.Proof]],
    console: Console,
    *,
    db: str,
    rules: Rules,
    otlp_grpc: str,
    otlp_http: str,
    options: Options,
    variables: Mapping[str, str],
    fail_fast: bool,
    inconclusive: str,
) -> int:
    """Receive spans while carrying out `proofs`; return the exit code. Raises Unusable."""
    report = TerminalReport(console)
    with Store.open(db) as store, Receiver(store, otlp_grpc, otlp_http, options) as receiver:
        declare_rules(store, rules)
        console.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")

        def tell(event: Event) -> None:
            report(event)
            history(event)

        runner = Runner(store, tell, variables, fail_fast)
        history = HistoryWriter(store, runner.run_id, "run")
        outcomes = runner.run(proofs)
    return exit_code(list(outcomes), inconclusive)


def exit_code(outcomes: list[Outcome], inconclusive: str) -> int:
    """Return the exit code for the worst outcome; `inconclusive` says what such proofs count as."""
    counted = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "keep": Outcome.INCONCLUSIVE}[inconclusive]
    return EXIT_CODES[worst([counted if each is Outcome.INCONCLUSIVE else each for each in outcomes])]
