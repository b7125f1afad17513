"""``spanproof run``: a receiver of its own, the proofs, their reports, and what they make the exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from rich.console import Console

from spanproof.api.cli.console import print_diagnostics
from spanproof.api.cli.receiver_options import ReceiverOptionGroup
from spanproof.api.cli.report_options import ReportTarget, write_reports
from spanproof.api.cli.run_options import RunOptionGroup
from spanproof.assertions.findings.verdict import EXIT_CODES, Outcome, find_worst_outcome
from spanproof.assertions.reports.history import HistoryWriter
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.run.events import RunEvent
from spanproof.assertions.run.proof_files import ProofSelection
from spanproof.assertions.run.proof_run import RunSettings
from spanproof.assertions.run.runner import Runner
from spanproof.collector.calls.service_rules import ServiceRules, store_rules
from spanproof.collector.receive.receiver import Receiver, freeze_loaded_objects
from spanproof.collector.receive.receiver_options import ReceiverOptions
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.modules import ProofModule
from spanproof.query_lang.check.secrets import Secrets
from spanproof.query_lang.syntax import nodes as s

ProofList: TypeAlias = list[tuple[ProofModule, s.Proof]]
WATCH_MESSAGE: Final = "waiting for what is saved; Ctrl-C ends it"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is to be carried out, and how."""

    selection: ProofSelection
    options: RunOptionGroup
    reports: tuple[ReportTarget, ...]
    variables: Mapping[str, str]
    secrets: Secrets

    def select_proofs(self, modules: Iterable[ProofModule]) -> ProofList:
        """Return the proofs that are selected."""
        return [(module, proof) for module in modules for proof in module.proofs if self.selection.is_selected(proof)]

    def execute(self, proofs: ProofList, store: Store, console: Console) -> int:
        """Carry out proofs and write the reports, also of a run that is broken off; return the exit code.

        Raises ValueError where a report cannot be written.
        """
        terminal = TerminalReport(console)

        def tell(event: RunEvent) -> None:
            history(event)
            terminal(event)  # what it shows is kept

        terms = RunSettings(self.variables, secrets=self.secrets)
        told = self.options
        runner = Runner(store, tell, terms, told.fail_fast, workers=told.workers, retries=told.retries)
        history = HistoryWriter(store, terms.run_id, "run")
        try:
            outcomes = runner.run(proofs)
        except BaseException:
            history.finish(Outcome.ERROR)
            raise
        finally:
            terminal.close()
            write_reports(self.reports, history.document, lambda text: console.out(text, end="", highlight=False))
        flaky = any(proof.flaky for proof in history.document.proofs)
        return compute_exit_code(list(outcomes), self.options.inconclusive, flaky=flaky and self.options.fail_on_flaky)


def run_proofs(
    proofs: ProofList,
    plan: RunPlan,
    console: Console,
    *,
    db: str,
    rules: ServiceRules,
    receiver_group: ReceiverOptionGroup,
    options: ReceiverOptions,
    watched: list[Path],
) -> int:
    """Receive spans while carrying out `proofs`; return the exit code. Raises UserError, ValueError.

    With `--watch`, it goes on with what is saved of the files `watched`, until stopped.
    """
    with (
        Store.open(db) as store,
        Receiver(store, receiver_group.otlp_grpc, receiver_group.otlp_http, options) as receiver,
    ):
        store_rules(store, rules)
        freeze_loaded_objects()
        console.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")
        with _interrupt_on_signals():
            if not plan.options.watch:
                return plan.execute(proofs, store, console)
            return _rerun_saved(proofs, plan, store, console, watched)


@contextmanager
def _interrupt_on_signals() -> Iterator[None]:
    """Take SIGTERM and SIGHUP, by which CI and terminals end it, for Ctrl-C: it cleans up, and writes its reports."""
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _rerun_saved(proofs: ProofList, plan: RunPlan, store: Store, console: Console, watched: list[Path]) -> int:
    """Carry out proofs, and again what is saved of them, until Ctrl-C; return the last exit code."""
    from spanproof.api.commands.watch import ProofWatcher

    with ProofWatcher(watched) as saved:
        code = plan.execute(proofs, store, console)
        with suppress(KeyboardInterrupt):
            console.print(WATCH_MESSAGE, style="dim")
            for found in saved:
                if isinstance(found, str):
                    console.print(found, style="red")
                elif not print_diagnostics(found) and (chosen := plan.select_proofs(found)):
                    code = plan.execute(chosen, store, console)
                console.print(WATCH_MESSAGE, style="dim")
    return code


def compute_exit_code(outcomes: list[Outcome], inconclusive: str, *, flaky: bool = False) -> int:
    """Return the exit code for the worst outcome; `inconclusive` says what such proofs count as, `flaky` fails."""
    counted = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "keep": Outcome.INCONCLUSIVE}[inconclusive]
    judged = [counted if each is Outcome.INCONCLUSIVE else each for each in outcomes]
    return EXIT_CODES[find_worst_outcome([*judged, *([Outcome.FAIL] if flaky else [])])]
