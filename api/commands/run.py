"""``spanproof run``: receives spans, runs proofs, writes reports, and derives the exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer
from msgspec import Struct

from spanproof.api.cli.command_app import Database, add_option_group, make_command_app
from spanproof.api.cli.console import exit_on_variable_problems, load_modules, make_console, print_diagnostics
from spanproof.api.cli.exits import EXIT_NOTHING_SELECTED, EXIT_USAGE, exit_with_error
from spanproof.api.cli.receiver_options import ReceiverOptionGroup
from spanproof.api.cli.report_options import ReportOption, ReportTarget, read_report_targets, write_reports
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
    from rich.console import Console

    from spanproof.assertions.findings.verdict import Outcome
    from spanproof.assertions.run.events import RunEvent
    from spanproof.assertions.run.proof_files import ProofSelection
    from spanproof.collector.calls.service_rules import ServiceRules
    from spanproof.collector.receive.receiver_options import ReceiverOptions
    from spanproof.collector.storage.store import Store
    from spanproof.query_lang.check.secrets import Secrets
    from spanproof.query_lang.load.modules import ProofModule
    from spanproof.query_lang.syntax import nodes as s

    ProofList: TypeAlias = list[tuple[ProofModule, s.Proof]]

IN_MEMORY: Final = ":memory:"
WATCH_MESSAGE: Final = "waiting for saved files; Ctrl-C ends the run"

app = make_command_app()


class RunOptionGroup(Struct, frozen=True):
    """Options of a run; each field is one option."""

    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Start no further proof after the first that does not pass.")
    ] = False
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", envvar="SPANPROOF_WORKERS", help="Run up to N proofs in parallel.")
    ] = 1
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            envvar="SPANPROOF_RETRIES",
            help="Retry a proof that does not pass up to N times; if it then passes, it is flaky.",
        ),
    ] = 0
    fail_on_flaky: Annotated[bool, typer.Option("--fail-on-flaky", help="Exit with code 1 if a proof is flaky.")] = (
        False
    )
    inconclusive: Annotated[
        str, typer.Option(metavar="pass|fail|keep", help="How an inconclusive proof counts in the exit code.")
    ] = "keep"
    report: ReportOption = None
    var: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set the value of a `let`; may be repeated.")
    ] = None
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Like --var, but the value is masked in all output."),
    ] = None
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="More variables for `env`, lines of NAME=VALUE; the environment overrides them."
        ),
    ] = None
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running, and rerun the proofs of saved files, until stopped.")
    ] = False

    def read_variables(self) -> tuple[dict[str, str], Secrets]:
        """Return the variables and the secrets among them; add the file to the environment. Raises ValueError."""
        from spanproof.assertions.run.env_file import read_env_file
        from spanproof.assertions.run.settings import read_variables

        if self.inconclusive not in ("pass", "fail", "keep"):
            raise ValueError(f"--inconclusive is pass, fail or keep, not {self.inconclusive!r}")
        variables, secrets = read_variables(self.var or (), self.secret or ())
        for name, value in read_env_file(self.env_file).items() if self.env_file else ():
            os.environ.setdefault(name, value)
        return variables, secrets


@app.command(
    short_help="Run proofs: send their requests and judge the traces.",
    epilog='Example: spanproof run checks -k checkout --var base="http://127.0.0.1:8080" --report html=report.html',
)
@add_option_group("receiver_group", ReceiverOptionGroup)
@add_option_group("run_group", RunOptionGroup)
def run(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Proof files or folders of them.")
    ] = None,
    *,
    keyword: Annotated[
        str | None, typer.Option("-k", metavar="WORD", help="Only proofs with this in their name.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only proofs with this tag; may be repeated.")
    ] = None,
    proxy: Proxies = None,
    max_retry_gap: RetryGap = "60s",
    max_clock_skew: ClockSkew = "10ms",
    circuit_marker: CircuitMarkers = None,
    edge: Edges = None,
    retried_call: RetriedCalls = None,
    distinct_call: DistinctCalls = None,
    db: Database = IN_MEMORY,
    run_group: RunOptionGroup,
    receiver_group: ReceiverOptionGroup,
) -> None:
    """Receive spans, send the requests of proofs and judge their traces."""
    import_libraries()
    from spanproof.assertions.run.proof_files import ProofSelection
    from spanproof.assertions.run.settings import read_rules

    try:
        reports = read_report_targets(run_group.report or ())
        variables, secrets = run_group.read_variables()
        options = receiver_group.make_receiver_options()
        rules = read_rules(
            proxy or (),
            max_retry_gap,
            max_clock_skew,
            circuit_marker or (),
            edge or (),
            retried_call or (),
            distinct_call or (),
        )
    except ValueError as error:
        exit_with_error(str(error))
    modules = load_modules(paths or [Path()])
    if print_diagnostics(modules):
        sys.exit(EXIT_USAGE)
    exit_on_variable_problems(modules, variables)
    selection = ProofSelection(keyword, frozenset(tag or ()))
    plan = RunPlan(selection, run_group, reports, variables, secrets, keeps_history=db != IN_MEMORY)
    proofs = plan.select_proofs(modules)
    if not proofs:
        exit_with_error("no proof is selected", EXIT_NOTHING_SELECTED)
    try:
        code = run_proofs(
            proofs, plan, make_console(), db=db, rules=rules, receiver_group=receiver_group, options=options,
            watched=paths or [Path()],
        )  # fmt: skip
    except ValueError as error:
        exit_with_error(str(error))
    sys.exit(code)


class RunPlan(Struct, frozen=True):
    """The selection, options and settings of a run."""

    selection: ProofSelection
    options: RunOptionGroup
    reports: tuple[ReportTarget, ...]
    variables: Mapping[str, str]
    secrets: Secrets
    keeps_history: bool  # a store in memory ends with the command

    def select_proofs(self, modules: Iterable[ProofModule]) -> ProofList:
        """Return the selected proofs."""
        return [(module, proof) for module in modules for proof in module.proofs if self.selection.is_selected(proof)]

    def execute(self, proofs: ProofList, store: Store, console: Console) -> int:
        """Run proofs and write the reports, also after an interrupt; return the exit code.

        Raises ValueError if a report cannot be written.
        """
        from spanproof.assertions.findings.verdict import Outcome
        from spanproof.assertions.reports.history import HistoryWriter
        from spanproof.assertions.reports.terminal import TerminalReport
        from spanproof.assertions.run.proof_run import RunSettings
        from spanproof.assertions.run.runner import Runner

        terminal = TerminalReport(console)

        def emit(event: RunEvent) -> None:
            history(event)
            terminal(event)  # last: what is shown has been stored

        settings = RunSettings(self.variables, secrets=self.secrets)
        options = self.options
        runner = Runner(store, emit, settings, options.fail_fast, workers=options.workers, retries=options.retries)
        history = HistoryWriter(store if self.keeps_history else None, settings.run_id, "run")
        try:
            outcomes = runner.run(proofs)
        except BaseException:
            history.finish(Outcome.ERROR)
            raise
        finally:
            terminal.close()
            write_reports(self.reports, history.document, lambda text: console.out(text, end="", highlight=False))
        flaky = any(proof.flaky for proof in history.document.proofs)
        return compute_exit_code(list(outcomes), options.inconclusive, flaky=flaky and options.fail_on_flaky)


# The modules of `run` that take longest to import; DuckDB opens the store on another processor meanwhile.
_IMPORTED_WHILE_OPENING: Final = (
    "spanproof.collector.receive.receiver",
    "spanproof.assertions.reports.terminal",
    "spanproof.assertions.run.runner",
)


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
    """Receive spans while running `proofs`; return the exit code. Raises UserError, ValueError.

    With `--watch`, rerun the proofs of saved files among `watched`, until stopped.
    """
    from spanproof.collector.storage.store import Store

    with ThreadPoolExecutor() as executor:
        opening = executor.submit(Store.open, db)
        for module in _IMPORTED_WHILE_OPENING:
            import_module(module)
    from spanproof.collector.calls.service_rules import store_rules
    from spanproof.collector.receive.receiver import Receiver, freeze_loaded_objects

    with (
        opening.result() as store,
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
    """Treat SIGTERM and SIGHUP, which CI systems and terminals send, like Ctrl-C: clean up and write the reports."""
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _rerun_saved(proofs: ProofList, plan: RunPlan, store: Store, console: Console, watched: list[Path]) -> int:
    """Run proofs, and rerun those of saved files until Ctrl-C; return the last exit code."""
    from spanproof.api.cli.watch_mode import ProofWatcher

    with ProofWatcher(watched) as saved:
        code = plan.execute(proofs, store, console)
        with suppress(KeyboardInterrupt):
            console.print(WATCH_MESSAGE, style="dim")
            for change in saved:
                if isinstance(change, str):
                    console.print(change, style="red")
                elif not print_diagnostics(change) and (selected := plan.select_proofs(change)):
                    code = plan.execute(selected, store, console)
                console.print(WATCH_MESSAGE, style="dim")
    return code


def compute_exit_code(outcomes: list[Outcome], inconclusive: str, *, flaky: bool = False) -> int:
    """Return the exit code for the worst outcome.

    `inconclusive` (pass, fail or keep) is what an inconclusive proof counts as; `flaky` counts as a failure.
    """
    from spanproof.assertions.findings.verdict import EXIT_CODES, Outcome, find_worst_outcome

    counted = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "keep": Outcome.INCONCLUSIVE}[inconclusive]
    judged = [counted if each is Outcome.INCONCLUSIVE else each for each in outcomes]
    return EXIT_CODES[find_worst_outcome([*judged, *([Outcome.FAIL] if flaky else [])])]
