"""What a claim is compiled to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from spanproof.query_lang import vocabulary as v

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
    value: v.Type  # of `value`, for showing it
    stable: bool  # a finding, once there, stays what it is while spans are still to come
    if_then: bool = False  # nothing found means: not exercised
    trend: Trend = "unknown"  # of number: how left minus right moves as spans arrive
    operator: str = ""  # of number
    rests_on_all: bool = False  # a finding compares with something made of all traces
    stable_where: str = ""  # SQL over a finding `f`: those that are stable although not all are
    untold: str = ""  # of `all`: why `ok` may be NULL
