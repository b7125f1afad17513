"""Explanations of failed claims about retries, fallbacks and circuits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.explain import units
from spanproof.assertions.explain.text_formatting import format_count
from spanproof.query_lang.compile import circuit, resilience
from spanproof.query_lang.sql.conditions import find_subject
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

if TYPE_CHECKING:
    from spanproof.assertions.explain.claim_text import ClaimText
    from spanproof.assertions.findings.finding_counts import Finding, FindingCounts

# The reason, the id of the finding, and the text at the mark.
FailureExplanation: TypeAlias = tuple[str, str, str]
RETRY_TIERS: Final = {
    0: "single",
    1: "from a retry counter or a message id",
    2: "server spans at the callee",
    3: "inferred from order",
    4: "possible: nothing records that the same was asked for",
}


def explain_retry(
    claim: s.Retry, claim_text: ClaimText, sample: Finding | None, counts: FindingCounts
) -> FailureExplanation:
    """Explain why the attempts of a call violate ``retry``."""
    number, attempts, tier = (sample.note if sample and sample.note else [0, 0, 0])[:3]
    if number == resilience.NOT_RETRIED:
        return "the first attempt failed and was not retried", "not-retried", "not retried: 1 attempt"
    clause = claim.clauses[number - 1]
    value = sample.value if sample else None
    match clause:
        case s.Limit(name="attempts"):
            reason = f"there were {attempts} attempts ({RETRY_TIERS[tier]})"
        case s.Limit():
            limit = claim_text.read_source(clause.at).removeprefix(clause.name).strip()
            reason = f"one gap was {units.format_duration(int(value or 0))}, not {limit}"
        case s.Flag(name="backoff grows"):
            reason = "the gaps between attempts did not grow"
        case s.Flag() if clause.name in resilience.EVIDENCE_TIERS:
            reason = f"the evidence is weaker: {RETRY_TIERS[tier]}"
        case s.Flag(name="exhausted"):
            reason = "the last attempt recovered"
        case s.Flag():
            reason = "the last attempt failed too"
        case s.Cause():
            subject = find_subject(clause.condition)
            name = claim_text.read_source(subject.at) if subject else claim_text.read_source(clause.condition.at)
            had = f"no `{name}`" if value is None else f"`{name}` {units.format_value(value, ValueType('any'))}"
            reason = f"a failed attempt had {had}"
    return reason, "retry-mismatch", f"{reason}; {counts.fails} of {counts.n} calls"


def explain_circuit(sample: Finding | None, counts: FindingCounts) -> FailureExplanation:
    """Explain why a circuit breaker violates ``circuit``."""
    if sample is None or not sample.note:
        reason = "the circuit did not open as required"
    elif sample.note[0] == circuit.ATTEMPT_TOO_EARLY:
        reason = f"another attempt came {units.format_duration(sample.value)} after the circuit should have opened"
    elif sample.note[0] == circuit.OPENED_TOO_EARLY:
        reason = f"the circuit opened after {format_count(sample.note[1], 'failure')} already"
    else:
        reason = f"{sample.note[1]} attempts began before one of them had ended"
    return reason, "circuit", f"{counts.fails} of {format_count(counts.n, 'time')} that it should have opened"


def explain_fallback(to: str, sample: Finding | None, counts: FindingCounts) -> FailureExplanation:
    """Explain why the service `to` did not replace a failed call."""
    cause = sample.note[0] if sample and sample.note else resilience.FALLBACK_NOT_CALLED
    if cause == resilience.FALLBACK_CALLED_TOO_EARLY:
        reason = f"`{to}` was called before the call failed: a race, not a fallback"
    elif cause == resilience.FALLBACK_FAILED:
        reason = f"`{to}` was called, but failed, too"
    elif cause == resilience.CALLER_FAILED:
        reason = f"`{to}` was called, but the caller failed anyway"
    else:
        instead = f"; called instead: {sample.value}" if sample and sample.value else ""
        reason = f"`{to}` was not called{instead}"
    return reason, "no-fallback", f"{counts.fails} of {counts.n} failed calls"
