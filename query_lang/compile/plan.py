"""What a claim is compiled to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from spanproof.query_lang.syntax import vocabulary as v

Family: TypeAlias = Literal["all", "some", "none", "number"]
Trend: TypeAlias = Literal["fixed", "up", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A query that yields findings, and how a verdict follows from them.

    The query selects ``trace_id, ok, value, witness, rank, note`` from the traces in the table ``selected``:
    one row for each thing the claim speaks of. ``ok`` says whether the claim holds for it, NULL that there was
    nothing to judge. ``witness`` is a list of span keys; the row of lowest ``rank`` shows the matter best.

    Families: ``all`` things must hold, and there must be one; ``some``, one row per trace, each of which must
    hold; ``none``, each row is a counterexample; ``number``, one row (or one per trace) comparing numbers.
    """

    sql: str
    parameters: dict[str, object]
    family: Family
    value_type: v.ValueType  # of `value`, for showing it
    is_stable: bool  # a finding, once there, stays what it is while spans are still to come
    needs_occasion: bool = False  # nothing found means: not exercised
    trend: Trend = "unknown"  # of number: how left minus right moves as spans arrive
    operator: str = ""  # of number
    depends_on_all_traces: bool = False  # a finding compares with something made of all traces
    stable_condition_sql: str = ""  # SQL over a finding `f`: those that are stable although not all are
    undecided_reason: str = ""  # of `all`: why `ok` may be NULL
    is_empty_if_undecided: bool = False  # where `ok` is NULL there is nothing to judge

    @property
    def stability_sql(self) -> str:
        """SQL over a finding `f`: whether it stays what it is while spans are still to come."""
        return self.stable_condition_sql or str(self.is_stable).lower()

    @property
    def depends_on_absence(self) -> bool:
        """A pass says that something is not there, which what was dropped or not sampled might be."""
        return self.family != "some" and self.trend != "fixed"

    def is_decided(self, sign: int | None, *, holds: bool) -> bool:
        """Tell whether left minus right, of this sign, moving on as its trend says, keeps the comparison as it is."""
        if self.trend == "fixed":
            return True
        if sign is None or not self.is_stable or self.trend == "unknown":
            return False
        up = self.trend == "up"
        match self.operator:
            case ">" | ">=":
                return holds == up
            case "<" | "<=":
                return holds != up
            case "==" | "!=" | "in" | "not in":
                return sign > 0 if up else sign < 0
        return False
