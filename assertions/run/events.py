"""What happens in a run, as it happens. Every report is made from this one stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from spanproof.assertions.explain.trace_evidence import TraceView
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile


@dataclass(frozen=True, slots=True)
class ProofStarted:
    """A proof is about to be carried out."""

    file: ParsedFile
    proof: s.Proof


@dataclass(frozen=True, slots=True)
class RequestProgress:
    """A request is repeated: of `total`, so many are ``done``."""

    proof: s.Proof
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class WaitingForSpans:
    """The request was answered; spans are awaited. ``missing`` says which, ``open_claims`` how many need them."""

    proof: s.Proof
    missing: tuple[str, ...]
    open_claims: int


@dataclass(frozen=True, slots=True)
class Wait:
    """A stretch of waiting: since when, counted from the proof's beginning, and what was waited for."""

    at_ns: int
    open_claims: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimJudged:
    """A claim with its verdict, and the file that its positions belong to."""

    file: ParsedFile
    expectation: s.Expectation
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ProofFinished:
    """All claims of a proof are judged. ``view`` is the trace that shows what failed, where there is one.

    ``waits`` says how its spans were waited for; ``tries`` are the earlier tries, none of which passed. ``notes`` say
    what is worth knowing of how it was carried out.
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

    @property
    def flaky(self) -> bool:
        """It passed, but not at once."""
        return bool(self.tries) and self.outcome is Outcome.PASS


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over; ``flaky`` proofs are among those that passed."""

    outcomes: tuple[Outcome, ...]
    duration_ns: int
    flaky: int = 0


RunEvent: TypeAlias = ProofStarted | RequestProgress | WaitingForSpans | ClaimJudged | ProofFinished | RunFinished
