"""Text of outcomes and counts, shared by the reports."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from typing import Final

from spanproof.assertions.findings.verdict import OUTCOMES_BY_SEVERITY, SHOWN_GROUPS, Outcome
from spanproof.assertions.reports.documents import ProofDocument, VerdictDocument

FLAKY: Final = "flaky"
OUTCOME_WORDS: Final = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failed",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.ERROR: "in error",
}


def name_outcome(proof: ProofDocument) -> str:
    """Return the outcome of a proof as a word; a proof that passed only at a later try is flaky."""
    return FLAKY if proof.flaky else str(proof.outcome)


def rank_not_passed(verdicts: Iterable[VerdictDocument]) -> list[VerdictDocument]:
    """Return the verdicts that are no passes, the worst first; a consequence follows the others of its outcome."""
    return sorted(
        (each for each in verdicts if each.outcome is not Outcome.PASS),
        key=lambda each: (-OUTCOMES_BY_SEVERITY.index(each.outcome), each.follows_from is not None),
    )


def format_verdict_counts(verdicts: Iterable[VerdictDocument]) -> list[str]:
    """Return the number of claims per outcome, each with the number of consequences of other verdicts."""
    verdicts = list(verdicts)
    counts = Counter(each.outcome for each in verdicts)
    follow = Counter(each.outcome for each in verdicts if each.follows_from is not None)
    return [
        f"{counts[outcome]} {word}{_format_consequences(follow[outcome])}"
        for outcome, word in OUTCOME_WORDS.items()
        if counts[outcome]
    ]


def format_proof_counts(outcomes: Iterable[Outcome], flaky: int) -> list[tuple[str, str]]:
    """Return pairs of an outcome and its text, such as ``3 passed``."""
    counts = Counter(outcomes)
    parts = [(str(outcome), f"{counts[outcome]} {word}") for outcome, word in OUTCOME_WORDS.items() if counts[outcome]]
    if not flaky:
        return parts
    passed = counts[Outcome.PASS] - flaky
    return [*([(str(Outcome.PASS), f"{passed} passed")] if passed else []), (FLAKY, f"{flaky} flaky"), *parts[1:]]


def list_further_groups(verdict: VerdictDocument) -> list[str]:
    """Return the groups with the outcome of the verdict that its reason does not list, with their values."""
    return [each.text for each in verdict.groups if each.outcome is verdict.outcome][SHOWN_GROUPS:]


def format_rerun_command(proof: ProofDocument) -> str:
    """Return the command that runs a proof again."""
    return f"spanproof run {shlex.quote(proof.path)} -k {shlex.quote(proof.name)}"


def _format_consequences(n: int) -> str:
    return f" ({n} {'is a consequence' if n == 1 else 'are consequences'})" if n else ""
