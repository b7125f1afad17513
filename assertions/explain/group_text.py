"""Groups of ``by FIELD`` in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from spanproof.assertions.explain.text_formatting import format_count
from spanproof.assertions.findings.verdict import OUTCOMES_BY_SEVERITY, Outcome, Verdict
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    from spanproof.assertions.findings.finding_counts import FindingCounts, GroupKey


def choose_worst_group(
    judged: Mapping[GroupKey, Verdict], counts: Mapping[GroupKey, FindingCounts], by: tuple[s.Name, ...]
) -> tuple[GroupKey, Verdict]:
    """Return the group with the worst verdict, and that verdict; its reason names the group and counts them all.

    Of groups with equal verdicts, it is the one that is furthest from its limit.
    """
    group, verdict = max(
        judged.items(),
        key=lambda item: (OUTCOMES_BY_SEVERITY.index(item[1].outcome), _measure_distance(counts[item[0]])),
    )
    holding = sum(each.outcome is Outcome.PASS for each in judged.values())
    names = tuple(field.text for field in by)
    fields = ", ".join(names)
    if verdict.outcome is Outcome.PASS:
        return group, replace(verdict, reason=f"in each of {format_count(len(judged), 'group')} by {fields}")
    name = format_group(group or (None,), names)
    reason = f"{fields} {name}: {verdict.reason}; {holding} of {format_count(len(judged), 'group')} held"
    return group, replace(verdict, reason=reason, final=all(each.final for each in judged.values()))


def format_group(key: GroupKey, by: tuple[str, ...]) -> str:
    """Return a group by the texts of its fields; of caller and callee, as a call."""
    separator = " -> " if by[:2] == ("caller", "callee") else ", "
    return separator.join("missing" if text is None else text for text in key)


def _measure_distance(counts: FindingCounts) -> float:
    """Return how far a group is from its limit, in the unit of the value; 0 without numbers."""
    sample = counts.find_sample(ok=False)
    if sample is None or sample.limit is None or not isinstance(sample.value, int | float):
        return 0.0
    return abs(sample.value - sample.limit)
