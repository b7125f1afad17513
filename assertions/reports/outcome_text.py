"""How reports say what became of proofs."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from typing import Final

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.documents import ProofDocument, VerdictDocument

FLAKY: Final = "flaky"
OUTCOME_WORDS: Final = {
    Outcome.PASS: "passed",
    Outcome.FAIL: "failed",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.ERROR: "in error",
}


def name_outcome(proof: ProofDocument) -> str:
    """Return the outcome of a proof in a word; one that passed only when tried again is flaky."""
    return FLAKY if proof.flaky else str(proof.outcome)


def format_verdict_counts(verdicts: Iterable[VerdictDocument]) -> list[str]:
    """Say how many claims ended how, and how many of those that failed only follow from others."""
    verdicts = list(verdicts)
    counts = Counter(each.outcome for each in verdicts)
    follow = Counter(each.outcome for each in verdicts if each.follows_from is not None)
    return [
        f"{counts[outcome]} {word}{_format_consequences(follow[outcome])}"
        for outcome, word in OUTCOME_WORDS.items()
        if counts[outcome]
    ]


def format_proof_counts(outcomes: Iterable[Outcome], flaky: int) -> list[tuple[str, str]]:
    """Say how many proofs ended how: each part with the outcome it is about."""
    counts = Counter(outcomes)
    parts = [(str(outcome), f"{counts[outcome]} {word}") for outcome, word in OUTCOME_WORDS.items() if counts[outcome]]
    if not flaky:
        return parts
    passed = counts[Outcome.PASS] - flaky
    return [*([(str(Outcome.PASS), f"{passed} passed")] if passed else []), (FLAKY, f"{flaky} flaky"), *parts[1:]]


def format_rerun_command(proof: ProofDocument) -> str:
    """Return the command that runs a proof again."""
    return f"spanproof run {shlex.quote(proof.path)} -k {shlex.quote(proof.name)}"


def _format_consequences(n: int) -> str:
    return f" ({n} {'is a consequence' if n == 1 else 'are consequences'})" if n else ""
