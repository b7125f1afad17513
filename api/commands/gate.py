"""`spanproof gate`: looks at a server until it is decided whether proofs hold."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pydantic import TypeAdapter
from rich.console import Console
from rich.text import Text

from spanproof.api.cli.server_options import ServerAccess, make_server_error
from spanproof.assertions.findings.verdict import EXIT_CODES, Outcome
from spanproof.assertions.reports.documents import ProofDocument, RunDocument
from spanproof.assertions.reports.terminal import OUTCOME_SIGNS, OUTCOME_STYLES

_RUN_ADAPTER = TypeAdapter(RunDocument)
_TIMEOUT_S = 1000.0  # a server ends a run after 900 s


def poll_until_decided(
    access: ServerAccess,
    body: Mapping[str, object],
    duration_ns: int,
    interval_ns: int,
    console: Console,
    *,
    until_decided: bool,
) -> int:
    """Look every `every_ns` for `for_ns`, print each look and the last in full; return the exit code.

    It ends at a failure; with `until_decided`, at a pass too, which otherwise must hold to the end. Raises ServerError.
    """
    looks = duration_ns // interval_ns + 1
    begin = time.monotonic_ns()
    for look in range(looks):
        run = _evaluate_gate(access, {**body, "looks": looks})
        outcome = run.outcome or Outcome.ERROR
        decided = outcome in (Outcome.FAIL, Outcome.ERROR) or (until_decided and outcome is Outcome.PASS)
        if looks > 1:
            console.print(_summarize(run, f"look {look + 1} of {looks}"))
        if decided:
            break
        if look + 1 < looks:
            time.sleep(max(0, begin + (look + 1) * interval_ns - time.monotonic_ns()) / 1e9)
    for proof in run.proofs:
        console.print(_render_proof(proof), end="")
    return EXIT_CODES[outcome]


def _evaluate_gate(access: ServerAccess, body: Mapping[str, object]) -> RunDocument:
    response = access.send_request("POST", "/api/v1/gate", json=body, timeout_s=_TIMEOUT_S)
    if response.is_error:
        raise make_server_error(response)
    return _RUN_ADAPTER.validate_python(response.json()["run"])


def _summarize(run: RunDocument, what: str) -> Text:
    outcome = run.outcome or Outcome.ERROR
    text = Text(f"{what}: ").append(str(outcome), style=OUTCOME_STYLES[outcome])
    wrong = [each for proof in run.proofs for each in proof.verdicts if each.outcome is not Outcome.PASS]
    if wrong:
        text.append(f"; {wrong[0].claim}: {wrong[0].reason}" + (f"; and {len(wrong) - 1} more" if wrong[1:] else ""))
    return text


def _render_proof(proof: ProofDocument) -> Text:
    text = Text().append(f"{proof.outcome.upper()}", style=f"bold {OUTCOME_STYLES[proof.outcome]}")
    text.append(f" {proof.path}::{proof.name}\n", style="bold")
    if proof.error:
        text.append(f"  {proof.error}\n")
    for verdict in proof.verdicts:
        text.append(f"  {OUTCOME_SIGNS[verdict.outcome]} ", style=OUTCOME_STYLES[verdict.outcome]).append(verdict.claim)
        text.append(f"\n    {verdict.reason}\n", style="dim")
        if verdict.outcome is not Outcome.PASS and verdict.witnesses:
            text.append(f"    trace {verdict.witnesses[0].trace_id}\n", style="dim")
    return text
