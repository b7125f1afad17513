"""Plan of a claim: the result of its compilation."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from spanproof.query_lang.syntax import vocabulary as v

Family: TypeAlias = Literal["all", "some", "none", "number"]
Trend: TypeAlias = Literal["fixed", "up", "down", "unknown"]


class Plan(Struct, frozen=True):
    """Query that yields findings, and the rule by which a verdict follows from them.

    The query selects ``trace_id, ok, value, witness, rank, note`` from the traces in the table ``selected``: one row
    per item that the claim is about. ``ok`` is whether the claim holds for the item, or NULL if it cannot be judged.
    ``witness`` is a list of span keys. The row with the lowest ``rank`` is the best illustration.

    Families: ``all``: each row must hold, and there must be at least one. ``some``: one row per trace, each of which
    must hold. ``none``: each row is a counterexample. ``number``: one row (or one per trace) that compares numbers.
    """

    sql: str
    parameters: dict[str, object]
    family: Family
    value_type: v.ValueType  # type of `value`, for display
    is_stable: bool  # a finding does not change while spans are still arriving
    needs_occasion: bool = False  # without findings the claim is not exercised
    trend: Trend = "unknown"  # of `number`: how left minus right changes as spans arrive
    operator: str = ""  # of `number`
    depends_on_all_traces: bool = False  # a finding compares with a number of all traces
    stable_condition_sql: str = ""  # SQL over a finding `f`: whether it is stable although not all findings are
    undecided_reason: str = ""  # of `all`: why `ok` can be NULL
    has_limit: bool = False  # of `number`: findings have the other side of the comparison, too, as `limit_value`
    is_empty_if_undecided: bool = False  # if `ok` is NULL there is nothing to judge

    @property
    def stability_sql(self) -> str:
        """SQL over a finding `f`: whether it stays unchanged while spans are still arriving."""
        return self.stable_condition_sql or str(self.is_stable).lower()

    @property
    def depends_on_absence(self) -> bool:
        """Whether a pass asserts that spans are absent, so that dropped or unsampled spans could refute it."""
        return self.family != "some" and self.trend != "fixed"

    def is_decided(self, sign: int | None, *, holds: bool) -> bool:
        """Return whether the comparison keeps its result while left minus right, now of `sign`, follows its trend."""
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
