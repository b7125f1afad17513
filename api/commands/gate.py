"""``spanproof gate``: evaluates proofs on a server, repeatedly until they are decided."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from spanproof.api.cli.command_app import add_option_group, make_command_app
from spanproof.api.cli.console import (
    exit_on_variable_problems,
    make_console,
    print_diagnostics,
    print_server_diagnostics,
)
from spanproof.api.cli.exits import EXIT_USAGE, exit_with_error, read_or_exit
from spanproof.api.cli.server_connection import ServerAccess, make_server_error, read_diagnostics

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from spanproof.assertions.reports.documents import ProofDocument, RunDocument

_TIMEOUT_S: Final = 1000.0  # a server ends a run after 900 s

app = make_command_app()


@app.command(
    short_help="Evaluate proofs on a server until they are decided.",
    epilog="Example: spanproof gate deploy.proof --var version=1.4.2 --for 15m --every 30s --until-decided",
)
@add_option_group("access", ServerAccess)
def gate(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PROOF]", help="A proof file; it is sent to the server unchanged.")
    ] = None,
    *,
    stored: Annotated[
        str | None, typer.Option("--stored", metavar="NAME", help="A proof that the server stores, instead of a file.")
    ] = None,
    var: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="Set the value of a `let`; may be repeated.")
    ] = None,
    poll_for: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long to evaluate; the default is once.")
    ] = "0s",
    every: Annotated[str, typer.Option(metavar="DURATION", help="Time between evaluations.")] = "30s",
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Also end at the first pass, not only at the first failure.")
    ] = False,
    access: ServerAccess,
) -> None:
    """Evaluate proofs on a server, repeatedly while the traces do not decide them."""
    from spanproof.assertions.run.settings import read_variables
    from spanproof.query_lang.load.submitted_proofs import read_submitted_proof
    from spanproof.query_lang.syntax.literals import read_duration_ns

    limits = {}
    for option, text in (("--for", poll_for), ("--every", every)):
        try:
            limits[option] = read_duration_ns(text)
        except ValueError as error:
            exit_with_error(f"{option}: {error}")
    try:
        variables, _ = read_variables(var or (), ())
    except ValueError as error:
        exit_with_error(str(error))
    if limits["--for"] < 0 or limits["--every"] <= 0:
        exit_with_error("--for and --every are positive durations")
    if (path is None) == (stored is None):
        exit_with_error("give either PROOF, a file, or --stored, the name of a proof that the server stores")
    body: dict[str, object] = {"variables": variables}
    if path is None:
        body["stored"] = stored
    else:
        proof_text = read_or_exit(path, lambda path: path.read_text(encoding="utf-8-sig"))
        module = read_submitted_proof(proof_text, path.as_posix(), allow_requests=True)
        if print_diagnostics([module]):
            sys.exit(EXIT_USAGE)
        exit_on_variable_problems([module], variables)
        body |= {"proof": proof_text, "name": path.as_posix()}
    code = poll_until_decided(
        access, body, limits["--for"], limits["--every"], make_console(), until_decided=until_decided
    )
    sys.exit(code)


def poll_until_decided(
    access: ServerAccess,
    body: Mapping[str, object],
    duration_ns: int,
    interval_ns: int,
    console: Console,
    *,
    until_decided: bool,
) -> int:
    """Evaluate a gate every `interval_ns` for `duration_ns`, print each evaluation and the last in full.

    Return the exit code. A failure ends the polling. A pass ends it only with `until_decided`; otherwise it must hold
    to the end. Raises ServerError.
    """
    from spanproof.assertions.findings.verdict import EXIT_CODES, Outcome

    count = duration_ns // interval_ns + 1
    begin_ns = time.monotonic_ns()
    for number in range(1, count + 1):
        run = _evaluate_gate(access, {**body, "looks": count, "look": number})
        outcome = run.outcome or Outcome.ERROR
        decided = outcome in (Outcome.FAIL, Outcome.ERROR) or (until_decided and outcome is Outcome.PASS)
        if count > 1:
            console.print(_summarize(run, f"evaluation {number} of {count}"))
        if decided:
            break
        if number < count:
            time.sleep(max(0, begin_ns + number * interval_ns - time.monotonic_ns()) / 1e9)
    for proof in run.proofs:
        console.print(_render_proof(proof), end="")
    return EXIT_CODES[outcome]


def _evaluate_gate(access: ServerAccess, body: Mapping[str, object]) -> RunDocument:
    from pydantic import TypeAdapter

    from spanproof.assertions.reports.documents import RunDocument

    response = access.send_request("POST", "/api/v1/gate", json=body, timeout_s=_TIMEOUT_S)
    if response.is_error:
        if diagnostics := read_diagnostics(response):
            print_server_diagnostics(str(body.get("name") or body.get("stored")), diagnostics)
            sys.exit(EXIT_USAGE)
        raise make_server_error(response)
    return TypeAdapter(RunDocument).validate_python(response.json()["run"])


def _summarize(run: RunDocument, title: str) -> Text:
    from rich.text import Text

    from spanproof.assertions.findings.verdict import Outcome
    from spanproof.assertions.reports.outcome_text import rank_not_passed
    from spanproof.assertions.reports.terminal import OUTCOME_STYLES

    outcome = run.outcome or Outcome.ERROR
    text = Text(f"{title}: ").append(str(outcome), style=OUTCOME_STYLES[outcome])
    problems = [f"{proof.name}: {proof.error}" for proof in run.proofs if proof.error is not None]
    not_passed = rank_not_passed(each for proof in run.proofs for each in proof.verdicts)
    problems += [f"{each.claim}: {each.reason}" for each in not_passed]
    if problems:
        more = f"; and {len(problems) - 1} more" if problems[1:] else ""
        text.append(f"; {problems[0]}{more}")
    return text


def _render_proof(proof: ProofDocument) -> Text:
    from rich.text import Text

    from spanproof.assertions.findings.verdict import Outcome
    from spanproof.assertions.reports.terminal import OUTCOME_SIGNS, OUTCOME_STYLES

    text = Text().append(f"{proof.outcome.upper()}", style=f"bold {OUTCOME_STYLES[proof.outcome]}")
    text.append(f" {proof.path}::{proof.name}\n", style="bold")
    if proof.error:
        text.append(f"  {proof.error}\n")
    for verdict in proof.verdicts:
        text.append(f"  {OUTCOME_SIGNS[verdict.outcome]} ", style=OUTCOME_STYLES[verdict.outcome]).append(verdict.claim)
        reason = verdict.reason
        if verdict.follows_from is not None:
            reason = f"a consequence of line {proof.verdicts[verdict.follows_from].position.line}"
        text.append(f"\n    {reason}\n", style="dim")
        if verdict.outcome is not Outcome.PASS and verdict.witnesses:
            text.append(f"    trace {verdict.witnesses[0].trace_id}\n", style="dim")
    return text
