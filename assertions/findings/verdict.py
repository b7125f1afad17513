"""Verdicts and their evidence. Reports only render them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from spanproof.query_lang.syntax.nodes import TextRange


class Outcome(StrEnum):
    """The four verdicts."""

    PASS = "pass"  # noqa: S105 (not a password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


EXIT_CODES = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3, Outcome.ERROR: 4}
OUTCOMES_BY_SEVERITY = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL, Outcome.ERROR)


def find_worst_outcome(outcomes: list[Outcome]) -> Outcome:
    """Return the worst outcome; pass for an empty list."""
    return max(outcomes, key=OUTCOMES_BY_SEVERITY.index, default=Outcome.PASS)


@dataclass(frozen=True, slots=True)
class Witness:
    """A span that supports a verdict; hexadecimal ids as in OTLP/JSON."""

    trace_id: str
    span_id: str


class Mark(Struct, frozen=True):
    """A part of a claim, and the text beside it."""

    at: TextRange
    text: str


SHOWN_GROUPS = 3  # groups that a reason lists; reports list the others


class GroupEstimate(Struct, frozen=True):
    """An estimate of one group, with the fields that define the group. The baseline is None if there is none.

    ``text`` has the group and both values.
    """

    key: tuple[tuple[str, str | None], ...]
    outcome: Outcome
    n: int
    value: float
    baseline_n: int | None
    baseline_value: float | None
    text: str


class Verdict(Struct, frozen=True):
    """A judged claim.

    ``final`` means that no later span can change the verdict. ``at`` is the part of the claim that the evidence
    concerns, ``mark`` the text beside it; ``marks`` are other parts that help to read it. ``id`` names the kind
    of finding and is stable. ``missing_services`` are services that the claim needs and the traces lack.
    ``cause`` names what else than a missing service keeps claims from passing; claims with the same cause share it.
    ``follows_from`` is the index, among the claims of the proof, of the claim that reports the same cause. ``groups``
    are the estimates of a claim about groups, the furthest from its limit or baseline first.
    """

    outcome: Outcome
    id: str
    reason: str
    at: TextRange
    mark: str
    n: int = 0
    observed: str | None = None
    witnesses: tuple[Witness, ...] = ()
    help: str | None = None
    final: bool = True
    marks: tuple[Mark, ...] = ()
    missing_services: tuple[str, ...] = ()
    cause: str | None = None
    follows_from: int | None = None
    groups: tuple[GroupEstimate, ...] = ()
