"""Which parts of a claim's text a verdict points at and repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spanproof.assertions import units
from spanproof.assertions.verdict import Mark
from spanproof.assertions.wording import count
from spanproof.query_lang import syntax as s
from spanproof.query_lang.conditions import subject
from spanproof.query_lang.constants import is_constant
from spanproof.query_lang.plan import Plan
from spanproof.query_lang.types import as_selection

if TYPE_CHECKING:
    from spanproof.assertions.tally import Finding, Tally


@dataclass(frozen=True, slots=True)
class ClaimText:
    """A claim and the text that it stands in."""

    claim: s.Claim
    text: str

    def source(self, at: s.Source) -> str:
        """Return what stands there."""
        return self.text[at.start : at.end]

    def place(self, sample: Finding | None) -> s.Source:
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
            return self.claim.second.at
        return self.claim.at

    def observed(self, plan: Plan, sample: Finding | None) -> str | None:
        """Return the value seen."""
        if sample is None or plan.value.kind == "nothing":
            return None
        if isinstance(self.claim, s.Retry) and sample.note and sample.note[0] and sample.value is not None:
            clause = self.claim.clauses[sample.note[0] - 1]
            if isinstance(clause, s.Limit) and clause.name == "backoff":
                return units.show_duration(sample.value)
        return units.show(sample.value, plan.value)

    def other_marks(self, tally: Tally, sample: Finding | None) -> tuple[Mark, ...]:
        """Mark what the part that failed goes with."""
        match self.claim:
            case s.Before(first=first):
                return (Mark(first.at, "this was to end first"),)
            case s.Retry(call=call) if sample and sample.note and sample.note[0]:
                return (Mark(call.at, f"{count(tally.n, 'call')} to retry"),)
            case s.Fallback(call=call):
                return (Mark(call.at, f"{count(tally.n, 'call')} failed for good"),)
            case s.Every(selection=selection):
                return (Mark(selection.at, f"{tally.n} matched"),)
            case s.Budget(total=total) if sample and sample.note and sample.note[0]:
                return (Mark(total.at, "of this"),)
        return ()

    def subject(self) -> str:
        """Return the source text of what is compared."""
        match self.claim:
            case s.Comparison(condition=s.Compare() as condition):
                return self.source(condition.left.at)
            case s.Comparison(condition=s.OneOf() as condition):
                return self.source(condition.value.at)
            case s.Every(condition=condition) | s.No(condition=condition) | s.Some(condition=condition):
                looked_at = subject(condition) if condition is not None else None
                return self.source(looked_at.at) if looked_at else ""
        return ""

    def condition(self) -> str:
        """Say what is to happen before there is something to judge."""
        match self.claim:
            case s.Retry(call=call):
                return f"a failed first attempt of `{self.source(call.at)}`"
            case s.Circuit(call=call):
                return f"so many failures in a row of `{self.source(call.at)}`"
            case s.Timeout(call=call):
                return f"an attempt of `{self.source(call.at)}` that was cut off"
            case s.Fallback(call=call):
                return f"a failure of `{self.source(call.at)}`"
        return "the condition"

    def selections(self) -> list[s.Selection]:
        """Return the selections of spans and calls in the claim, in the order of its text."""
        found: list[s.Selection] = []
        for part in s.walk(self.claim):
            if isinstance(part, s.Target | s.Call):
                found.append(part)
            elif isinstance(part, s.Function) and part.arguments and not is_constant(part.arguments[0]):
                continue
            elif isinstance(part, s.Function) and part.arguments and part.name not in ("env", "exists", "len"):
                selection = as_selection(part.arguments[0])
                found += [selection] if selection else []
        return found

    def selection_at(self) -> s.Source:
        """Return where the first of these stands, else the claim."""
        selections = self.selections()
        return selections[0].at if selections else self.claim.at

    def limit(self) -> str:
        """Say what was wanted of a comparison."""
        condition = self.claim.condition if isinstance(self.claim, s.Comparison) else None
        if isinstance(condition, s.Compare):
            return f", not {self.source(s.Source(condition.left.at.end, condition.at.end)).strip()}"
        return ""

    def budget_part(self, claim: s.Budget, number: int) -> str:
        """Name a part of a budget; 0 is the whole."""
        if not number:
            return "the whole"
        part = claim.parts[number - 1][0]
        return f"`{self.source(part.at)}`" if part is not None else "another service"
