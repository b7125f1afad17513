"""`spanproof gate`: looks at a server until it is decided whether proofs hold."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pydantic import TypeAdapter
from rich.console import Console
from rich.text import Text

from spanproof.api.access import Access, refuse
from spanproof.assertions.documents import ProofDocument, RunDocument
from spanproof.assertions.reports.terminal import SIGNS, STYLES
from spanproof.assertions.verdict import EXIT_CODES, Outcome

_RUN = TypeAdapter(RunDocument)
_TIMEOUT_S = 1000.0  # a server ends a run after 900 s


def look_until_decided(
    access: Access, body: Mapping[str, object], for_ns: int, every_ns: int, console: Console, *, until_decided: bool
) -> int:
    """Look every `every_ns` for `for_ns`, print each look and the last in full; return the exit code.

    It ends at a failure; with `until_decided`, at a pass too, which otherwise must hold to the end. Raises ServerError.
    """
    looks = for_ns // every_ns + 1
    begin = time.monotonic_ns()
    for look in range(looks):
        run = _look(access, {**body, "looks": looks})
        outcome = run.outcome or Outcome.ERROR
        decided = outcome in (Outcome.FAIL, Outcome.ERROR) or (until_decided and outcome is Outcome.PASS)
        if looks > 1:
            console.print(_summarize(run, f"look {look + 1} of {looks}"))
        if decided:
            break
        if look + 1 < looks:
            time.sleep(max(0, begin + (look + 1) * every_ns - time.monotonic_ns()) / 1e9)
    for proof in run.proofs:
        console.print(_render(proof), end="")
    return EXIT_CODES[outcome]


def _look(access: Access, body: Mapping[str, object]) -> RunDocument:
    response = access.ask("POST", "/api/v1/gate", json=body, timeout_s=_TIMEOUT_S)
    if response.is_error:
        raise refuse(response)
    return _RUN.validate_python(response.json()["run"])


def _summarize(run: RunDocument, what: str) -> Text:
    outcome = run.outcome or Outcome.ERROR
    text = Text(f"{what}: ").append(str(outcome), style=STYLES[outcome])
    wrong = [each for proof in run.proofs for each in proof.verdicts if each.outcome is not Outcome.PASS]
    if wrong:
        text.append(f"; {wrong[0].claim}: {wrong[0].reason}" + (f"; and {len(wrong) - 1} more" if wrong[1:] else ""))
    return text


def _render(proof: ProofDocument) -> Text:
    text = Text().append(f"{proof.outcome.upper()}", style=f"bold {STYLES[proof.outcome]}")
    text.append(f" {proof.path}::{proof.name}\n", style="bold")
    if proof.error:
        text.append(f"  {proof.error}\n")
    for verdict in proof.verdicts:
        text.append(f"  {SIGNS[verdict.outcome]} ", style=STYLES[verdict.outcome]).append(verdict.claim)
        text.append(f"\n    {verdict.reason}\n", style="dim")
        if verdict.outcome is not Outcome.PASS and verdict.witnesses:
            text.append(f"    trace {verdict.witnesses[0].trace_id}\n", style="dim")
    return text
