"""How retries, fallbacks and circuits failed, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from spanproof.assertions.explain import units
from spanproof.assertions.explain.text_formatting import format_count
from spanproof.query_lang.compile import circuit, resilience
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import ValueType

if TYPE_CHECKING:
    from spanproof.assertions.findings.finding_counts import Finding, FindingCounts

# The reason, the id of the finding, and what stands at the mark.
FailureExplanation: TypeAlias = tuple[str, str, str]
RETRY_TIERS: Final = {0: "single", 1: "told by a counter", 2: "arrivals at the callee", 3: "inferred from order"}


def explain_retry(claim: s.Retry, sample: Finding | None, counts: FindingCounts) -> FailureExplanation:
    """Say what was wrong with attempts."""
    number, attempts, tier = (sample.note if sample and sample.note else [0, 0, 0])[:3]
    if number == resilience.NOT_RETRIED:
        return "the first attempt failed and was never tried again", "not-retried", "never tried again: 1 attempt"
    clause = claim.clauses[number - 1]
    value = sample.value if sample else None
    match clause:
        case s.Limit(name="attempts"):
            said = f"there were {attempts} attempts ({RETRY_TIERS[tier]})"
        case s.Limit():
            said = f"a gap was {units.format_duration(int(value or 0))}"
        case s.Flag(name="backoff grows"):
            said = "the gaps between attempts did not grow"
        case s.Flag(name="exhausted"):
            said = "the last attempt recovered"
        case s.Flag():
            said = "the last attempt failed too"
        case _:
            said = f"a failed attempt had {units.format_value(value, ValueType('any'))}"
    return said, "retry-mismatch", f"{said}; {counts.fails} of {counts.n} calls"


def explain_circuit(sample: Finding | None, counts: FindingCounts) -> FailureExplanation:
    """Say how a circuit did not hold."""
    if sample is None or not sample.note:
        said = "the circuit did not hold"
    elif sample.note[0] == circuit.ATTEMPT_TOO_EARLY:
        said = f"another attempt came {units.format_duration(sample.value)} after the circuit should have opened"
    else:
        said = f"there were {sample.note[1]} attempts before one succeeded"
    return said, "circuit", f"{counts.fails} of {format_count(counts.n, 'time')} that it should have opened"


def explain_fallback(to: str, sample: Finding | None, counts: FindingCounts) -> FailureExplanation:
    """Say how nobody stood in for what had failed; `to` should have."""
    reason = sample.note[0] if sample and sample.note else resilience.FALLBACK_NOT_CALLED
    if reason == resilience.FALLBACK_CALLED_TOO_EARLY:
        said = f"`{to}` was asked before the call had failed: a race, not a fallback"
    elif reason == resilience.CALLER_FAILED:
        said = f"`{to}` was asked, and the caller failed all the same"
    else:
        instead = f"; asked instead: {sample.value}" if sample and sample.value else ""
        said = f"`{to}` was not asked{instead}"
    return said, "no-fallback", f"{counts.fails} of {counts.n} failed calls"
