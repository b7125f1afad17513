"""``spanproof run``: a receiver of its own, the proofs, their reports, and what they make the exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from rich.console import Console

from spanproof.api.carrying import Carrying
from spanproof.api.receiving import Receiving
from spanproof.api.reporting import ReportTarget, write_reports
from spanproof.api.shell import show_problems
from spanproof.assertions.events import Event
from spanproof.assertions.history import HistoryWriter
from spanproof.assertions.proof_files import Selection
from spanproof.assertions.proof_run import Terms
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.runner import Runner
from spanproof.assertions.verdict import EXIT_CODES, Outcome, worst
from spanproof.collector.options import Options
from spanproof.collector.receiver import Receiver, leave_alone_what_is_loaded
from spanproof.collector.rules import Rules, declare_rules
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.modules import Module
from spanproof.query_lang.secrecy import Secrets

Proofs: TypeAlias = list[tuple[Module, s.Proof]]
WAITING: Final = "waiting for what is saved; Ctrl-C ends it"


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be carried out, and how."""

    selection: Selection
    carrying: Carrying
    reports: tuple[ReportTarget, ...]
    variables: Mapping[str, str]
    secrets: Secrets

    def select(self, modules: Iterable[Module]) -> Proofs:
        """Return the proofs that are selected."""
        return [(module, proof) for module in modules for proof in module.proofs if self.selection.takes(proof)]

    def carry_out(self, proofs: Proofs, store: Store, console: Console) -> int:
        """Carry out proofs and write the reports, also of a run that is broken off; return the exit code.

        Raises ValueError where a report cannot be written.
        """
        terminal = TerminalReport(console)

        def tell(event: Event) -> None:
            history(event)
            terminal(event)  # what it shows is kept

        terms = Terms(self.variables, secrets=self.secrets)
        told = self.carrying
        runner = Runner(store, tell, terms, told.fail_fast, workers=told.workers, retries=told.retries)
        history = HistoryWriter(store, terms.run_id, "run")
        try:
            outcomes = runner.run(proofs)
        except BaseException:
            history.end(Outcome.ERROR)
            raise
        finally:
            terminal.close()
            write_reports(self.reports, history.run, lambda text: console.out(text, end="", highlight=False))
        flaky = any(proof.flaky for proof in history.run.proofs)
        return exit_code(list(outcomes), self.carrying.inconclusive, flaky=flaky and self.carrying.fail_on_flaky)


def run_proofs(
    proofs: Proofs, run: Run, console: Console, *, db: str, rules: Rules, receiving: Receiving, options: Options,
    watched: list[Path],
) -> int:  # fmt: skip
    """Receive spans while carrying out `proofs`; return the exit code. Raises Unusable, ValueError.

    With `--watch`, it goes on with what is saved of the files `watched`, until stopped.
    """
    with Store.open(db) as store, Receiver(store, receiving.otlp_grpc, receiving.otlp_http, options) as receiver:
        declare_rules(store, rules)
        leave_alone_what_is_loaded()
        console.print(f"receiving OTLP at {receiver.grpc_address} (gRPC), {receiver.http_address} (HTTP)", style="dim")
        with _ended_by_any_signal():
            if not run.carrying.watch:
                return run.carry_out(proofs, store, console)
            return _carry_out_what_is_saved(proofs, run, store, console, watched)


@contextmanager
def _ended_by_any_signal() -> Iterator[None]:
    """Take SIGTERM and SIGHUP, by which CI and terminals end it, for Ctrl-C: it cleans up, and writes its reports."""
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _carry_out_what_is_saved(proofs: Proofs, run: Run, store: Store, console: Console, watched: list[Path]) -> int:
    """Carry out proofs, and again what is saved of them, until Ctrl-C; return the last exit code."""
    from spanproof.api.watching import Watcher

    with Watcher(watched) as saved:
        code = run.carry_out(proofs, store, console)
        with suppress(KeyboardInterrupt):
            console.print(WAITING, style="dim")
            for found in saved:
                if isinstance(found, str):
                    console.print(found, style="red")
                elif not show_problems(found) and (chosen := run.select(found)):
                    code = run.carry_out(chosen, store, console)
                console.print(WAITING, style="dim")
    return code


def exit_code(outcomes: list[Outcome], inconclusive: str, *, flaky: bool = False) -> int:
    """Return the exit code for the worst outcome; `inconclusive` says what such proofs count as, `flaky` fails."""
    counted = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "keep": Outcome.INCONCLUSIVE}[inconclusive]
    judged = [counted if each is Outcome.INCONCLUSIVE else each for each in outcomes]
    return EXIT_CODES[worst([*judged, *([Outcome.FAIL] if flaky else [])])]
