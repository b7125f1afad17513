"""Events of a run. All reports are made from this one stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from spanproof.assertions.explain.likely_cause import LikelyCause
from spanproof.assertions.explain.trace_evidence import TraceView
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile


class ProofStarted(Struct, frozen=True):
    """A proof starts."""

    file: ParsedFile
    proof: s.Proof


class RequestProgress(Struct, frozen=True):
    """Progress of a repeated request: ``done`` of ``total`` requests are answered."""

    proof: s.Proof
    done: int
    total: int


class WaitingForSpans(Struct, frozen=True):
    """The request was answered and spans are awaited.

    ``missing`` describes the awaited spans, ``open_claims`` is the number of claims that need them.
    """

    proof: s.Proof
    missing: tuple[str, ...]
    open_claims: int


@dataclass(frozen=True, slots=True)
class Wait:
    """A period of waiting: its start, counted from the start of the proof, and the awaited spans."""

    at_ns: int
    open_claims: int
    missing: tuple[str, ...]


class ClaimJudged(Struct, frozen=True):
    """A claim with its verdict, and the file that its positions refer to."""

    file: ParsedFile
    expectation: s.Expectation
    verdict: Verdict


class ProofFinished(Struct, frozen=True):
    """All claims of a proof are judged. ``view`` is the trace that shows the failure, if there is one.

    ``waits`` lists the periods of waiting for spans; ``tries`` are the earlier tries, none of which passed. ``notes``
    are remarks about the execution. ``likely_causes`` are the services in which a difference to the baseline arose.
    """

    file: ParsedFile
    proof: s.Proof
    outcome: Outcome
    judged: tuple[ClaimJudged, ...]
    view: TraceView | None
    duration_ns: int
    error: str | None = None
    waits: tuple[Wait, ...] = ()
    tries: tuple[ProofFinished, ...] = ()
    notes: tuple[str, ...] = ()
    likely_causes: tuple[LikelyCause, ...] = ()

    @property
    def flaky(self) -> bool:
        """Return whether the proof passed, but not at the first try."""
        return bool(self.tries) and self.outcome is Outcome.PASS


class RunFinished(Struct, frozen=True):
    """The run is over; ``flaky`` counts proofs that passed only at a later try."""

    outcomes: tuple[Outcome, ...]
    duration_ns: int
    flaky: int = 0


RunEvent: TypeAlias = ProofStarted | RequestProgress | WaitingForSpans | ClaimJudged | ProofFinished | RunFinished
