"""The parts of a claim's source text that a verdict marks and quotes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from spanproof.assertions.explain import units
from spanproof.assertions.explain.text_formatting import format_count
from spanproof.assertions.findings.verdict import Mark
from spanproof.query_lang.check.constants import is_constant
from spanproof.query_lang.check.types import to_selection
from spanproof.query_lang.sql.conditions import find_subject
from spanproof.query_lang.sql.plan import Plan
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.vocabulary import SELECTION_FUNCTIONS

if TYPE_CHECKING:
    from spanproof.assertions.findings.finding_counts import Finding, FindingCounts


class ClaimText(Struct, frozen=True):
    """A claim and the text of its file."""

    claim: s.Claim
    text: str

    def read_source(self, at: s.TextRange) -> str:
        """Return the source text in a range."""
        return self.text[at.start : at.end]

    def find_failed_part(self, sample: Finding | None) -> s.TextRange:
        """Return the part of the claim that failed."""
        if isinstance(self.claim, s.Retry) and sample and sample.note and sample.note[0]:
            return self.claim.clauses[sample.note[0] - 1].at
        if isinstance(self.claim, s.Every):
            return self.claim.condition.at
        if isinstance(self.claim, s.Budget) and sample and sample.note:
            number = sample.note[0]
            return self.claim.parts[number - 1][1].at if number else self.claim.total.at
        if isinstance(self.claim, s.Fallback):
            return self.claim.to.at
        if isinstance(self.claim, s.Before):
            is_late = bool(sample and sample.note and sample.note[0])
            return self.claim.limit.at if is_late and self.claim.limit is not None else self.claim.second.at
        return self.claim.at

    def format_observed(self, plan: Plan, sample: Finding | None) -> str | None:
        """Return the observed value, or None if there is none."""
        if sample is None or plan.value_type.kind == "nothing":
            return None
        if isinstance(self.claim, s.Retry) and sample.note and sample.note[0] and sample.value is not None:
            clause = self.claim.clauses[sample.note[0] - 1]
            if isinstance(clause, s.Limit) and clause.name == "backoff":
                return units.format_duration(sample.value)
        return units.format_value(sample.value, plan.value_type)

    def make_related_marks(self, counts: FindingCounts, sample: Finding | None) -> tuple[Mark, ...]:
        """Return marks for the parts of the claim that help to read the failed part."""
        match self.claim:
            case s.Before(first=first):
                return (Mark(first.at, "this must end first"),)
            case s.Retry(call=call) if sample and sample.note and sample.note[0]:
                return (Mark(call.at, f"{format_count(counts.n, 'call')} to retry"),)
            case s.Fallback(call=call):
                return (Mark(call.at, f"{format_count(counts.n, 'call')} failed"),)
            case s.Every(selection=selection):
                return (Mark(selection.at, f"{counts.n} matched"),)
            case s.Budget(total=total) if sample and sample.note and sample.note[0]:
                return (Mark(total.at, "of this"),)
        return ()

    def read_subject(self) -> str:
        """Return the source text of the compared value; empty if there is none."""
        match self.claim:
            case s.ComparisonClaim(condition=s.Compare() as condition):
                return self.read_source(condition.left.at)
            case s.ComparisonClaim(condition=s.OneOf() as condition):
                return self.read_source(condition.value.at)
            case s.Every(condition=condition) | s.No(condition=condition) | s.Some(condition=condition):
                subject = find_subject(condition) if condition is not None else None
                return self.read_source(subject.at) if subject else ""
        return ""

    def describe_missing_occasion(self) -> str:
        """Return why the claim has nothing to judge."""
        match self.claim:
            case s.Retry(call=call):
                return f"no first attempt of `{self.read_source(call.at)}` failed, so there was nothing to retry"
            case s.Circuit(call=call):
                call_text = self.read_source(call.at)
                return f"`{call_text}` did not fail so many times in a row that the circuit should have opened"
            case s.Timeout(call=call):
                return f"no attempt of `{self.read_source(call.at)}` was cut off, so there was no timeout"
            case s.Fallback(call=call):
                return f"no call `{self.read_source(call.at)}` failed, so there was nothing to fall back from"
        return "the condition never held"

    def find_selections(self) -> list[s.Selection]:
        """Return the selections of spans and calls in the claim, in source order."""
        return find_selections(self.claim)

    def locate_first_selection(self) -> s.TextRange:
        """Return the range of the first selection, or of the claim if it has none."""
        selections = self.find_selections()
        return selections[0].at if selections else self.claim.at

    def format_limit(self) -> str:
        """Return the limit of a comparison as a suffix, such as ``, not < 300ms``."""
        condition = self.claim.condition if isinstance(self.claim, s.ComparisonClaim) else None
        if isinstance(condition, s.Compare):
            return f", not {self.read_source(s.TextRange(condition.left.at.end, condition.at.end)).strip()}"
        return ""

    def format_computed_limit(self, plan: Plan, sample: Finding | None) -> str:
        """Return the value of a limit that is computed from traces, such as `` (20ms)``; empty for a constant."""
        condition = self.claim.condition if isinstance(self.claim, s.ComparisonClaim) else None
        if sample is None or sample.limit is None or not isinstance(condition, s.Compare):
            return ""
        if is_constant(condition.right):
            return ""
        limit = round(sample.limit) if plan.value_type.kind == "duration" else sample.limit
        return f" ({units.format_value(limit, plan.value_type)})"

    def explain_value_sets(self, plan: Plan, sample: Finding | None) -> str:
        """Return why the sets of values of two selections are not as claimed."""
        condition = self.claim.condition if isinstance(self.claim, s.ComparisonClaim) else None
        if sample is None or not sample.note or not isinstance(condition, s.Compare):
            return "the sets are not as claimed"
        left, right = (f"`{self.read_source(side.at)}`" for side in (condition.left, condition.right))
        value = units.format_value(sample.value, plan.value_type)
        if not sample.note[0]:
            return f"{left} and {right} both have {value}"
        has, lacks = (left, right) if sample.note[0] == 1 else (right, left)
        return f"{has} has {value}, which {lacks} does not have"

    def name_budget_part(self, claim: s.Budget, number: int) -> str:
        """Return the name of a part of a budget; number 0 is the whole."""
        if not number:
            return "the whole"
        part = claim.parts[number - 1][0]
        return f"`{self.read_source(part.at)}`" if part is not None else "another service"


def find_selections(node: object) -> list[s.Selection]:
    """Return the selections of spans and calls in a claim or an expression, in source order."""
    result: list[s.Selection] = []
    for part in s.walk(node):
        if isinstance(part, s.SpanSelection | s.CallSelection):
            result.append(part)
        elif isinstance(part, s.Function) and part.name in SELECTION_FUNCTIONS and part.arguments:
            service = part.arguments[0]
            is_service = isinstance(service, s.Text) or (isinstance(service, s.Name) and service.text != "traces")
            selection = to_selection(service) if is_service else None
            result += [selection] if selection else []
    return result
